"""The simulation of workers, server and events, and the replay of their traces. No algorithm is named here.

``timing`` simulates when everything happens, ``replays`` computes the effect on a model, ``experiments`` combines
both, ``sweeps`` executes many runs, ``whatif`` compares synchronies on measured step times, ``regression``
compares convergence with a baseline. ``cli`` is the command line, ``testing`` the plugin for pytest.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
