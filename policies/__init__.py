"""Algorithms: who waits for whom (synchrony) and what a stale gradient is worth (rules). No clock, no model.

Order of reading: ``synchrony``, ``schedules``, ``rules`` with their ``parts``, ``optimizers``, ``controllers``,
``methods``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
