"""Delays: distributions of random times.

A new delay is a class in the file of its family and a line in ``registry.py``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
