"""Data sets: their files, the places where these are searched, and the loaded arrays.

A new data set is an entry of ``sources.py``; a new format is a function of ``formats.py``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
