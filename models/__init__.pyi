from .datasets import (
    Dataset as Dataset,
    Text as Text,
    list_datasets as list_datasets,
    load_dataset as load_dataset,
    load_text as load_text,
)
from .networks import list_models as list_models
from .objective import Objective as Objective
from .problem import Problem as Problem
