"""Data sets: what they are made of, where they are looked for, and what they are once loaded.

A new one is an entry of ``sources.py``; a new format is a function of ``formats.py``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
