"""Links: the times of transfers of messages and models between the workers and the server.

``network.py`` describes sizes and bandwidths, ``sharing.py`` divides capacity, and ``latency.py`` and
``transfers.py`` execute the transfers of a simulation. Measured latencies of regions are in ``regions.py``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
