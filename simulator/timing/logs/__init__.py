"""Logs of real runs: step times, intervals, parameter servers and profilers, read or recorded.

``sources`` reads files, ``cells`` reads their columns; a new kind of log is a function in its own file.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
