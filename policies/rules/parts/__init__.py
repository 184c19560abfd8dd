"""What rules are composed of: corrections, staleness weights, tables, momenta, look-aheads and the workers' work.

A part is imported when a rule that has it is built, so that methods can be named, listed and timed without JAX.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
