from .datasets import (
    Dataset as Dataset,
    Text as Text,
    list_datasets as list_datasets,
    load_dataset as load_dataset,
    load_text as load_text,
)
from .networks import list_models as list_models
from .objective import Objective as Objective
from .partitions import (
    Assigned as Assigned,
    ClassesPerWorker as ClassesPerWorker,
    Dirichlet as Dirichlet,
    Partition as Partition,
    Shuffled as Shuffled,
)
from .problem import Problem as Problem
