"""Problems: model + data + loss. Knows neither time nor workers nor algorithms."""

from stalegrad.models.datasets import Dataset, list_datasets, load_dataset
from stalegrad.models.problem import Objective, Problem, list_models

__all__ = ["Dataset", "Objective", "Problem", "list_datasets", "list_models", "load_dataset"]
