"""What rules are composed of: corrections, staleness weights, tables, momenta, look-aheads and the workers' work.

A part is imported when a rule that has it is built, so that methods can be named, listed and timed without JAX.

Example:
    >>> import numpy as np
    >>> from stalegrad.policies import parts
    >>> weight = parts.staleness_weights.StalenessAware()
    >>> weight(staleness=np.array([0, 1, 4]), update=np.arange(3), workers=4)
    array([1.  , 1.  , 0.25])
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
