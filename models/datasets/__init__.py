"""Data sets: what they are made of, where they are sought, and what they are once loaded."""

from stalegrad.models.datasets.dataset import Dataset, Text
from stalegrad.models.datasets.fingerprint import fingerprint
from stalegrad.models.datasets.folder import ImageFolder, load_folder
from stalegrad.models.datasets.load import data_fingerprint, list_datasets, load_dataset, load_text
from stalegrad.models.datasets.sources import SOURCES

__all__ = [
    "SOURCES",
    "Dataset",
    "ImageFolder",
    "Text",
    "data_fingerprint",
    "fingerprint",
    "list_datasets",
    "load_dataset",
    "load_folder",
    "load_text",
]
