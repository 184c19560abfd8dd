"""Mechanism: time, workers and events, and the replay of what they did. Knows no algorithm by name.

``timing`` simulates when everything happens, ``replays`` computes what it does to a model, ``experiments`` puts
both together, ``sweeps`` runs many, ``regression`` compares convergence with a baseline. ``cli`` and ``testing``
are for the command line and pytest.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
