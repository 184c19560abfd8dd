"""Analysis: statistics, plots, fits, reports, and theory to compare them with.

Functions take finished data, or delays and constants of problems, and return numbers, matplotlib ``Axes`` or HTML.
Not allowed: imports of the simulator (except its delays), policies and models. Data have the protocols of
``stalegrad._core.protocols``. No model is trained, and no global state of matplotlib is changed.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
