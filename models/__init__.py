"""Problems: model + data + loss. Knows neither time nor workers nor algorithms."""

from stalegrad.models.datasets import Dataset, Text, list_datasets, load_dataset, load_text
from stalegrad.models.objective import Objective
from stalegrad.models.problem import Problem, list_models

__all__ = [
    "Dataset",
    "Objective",
    "Problem",
    "Text",
    "list_datasets",
    "list_models",
    "load_dataset",
    "load_text",
]
