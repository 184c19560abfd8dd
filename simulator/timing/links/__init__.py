"""Links: how long messages and models travel between the workers and the server.

``network.py`` says what a network is, ``sharing.py`` divides its capacity, ``direction.py`` carries messages in a
simulation. Latencies of regions are in ``regions.py``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
