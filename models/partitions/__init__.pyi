from .assigned import Assigned as Assigned
from .base import Partition as Partition, split_of as split_of
from .registry import PARTITIONS as PARTITIONS, as_partition as as_partition
from .shuffled import Shuffled as Shuffled
from .skewed import ClassesPerWorker as ClassesPerWorker, Dirichlet as Dirichlet
