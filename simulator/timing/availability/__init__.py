"""Availability: when the workers of a cluster are present.

A new kind is a class in its own file and a line in ``registry.py``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
