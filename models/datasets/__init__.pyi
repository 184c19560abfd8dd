from .dataset import Dataset as Dataset, Text as Text
from .fingerprints import fingerprint as fingerprint
from .folder import ImageFolder as ImageFolder, load_folder as load_folder
from .load import data_fingerprint as data_fingerprint, load_dataset as load_dataset, load_text as load_text
from .sources import SOURCES as SOURCES, list_datasets as list_datasets
