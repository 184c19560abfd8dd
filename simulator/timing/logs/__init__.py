"""Logs of real runs: step times, intervals, parameter servers and profilers, read or recorded.

``sources`` reads files, ``cells`` their columns; a new kind of log is a function in a file of its own.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
