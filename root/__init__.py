"""A discrete-event staleness simulator of distributed training: ``import stalegrad as sg``.

SimPy simulates when every gradient is read, finished and applied; JAX computes what each does to a real model.
Names are imported when they are first used.

Example:
    >>> import stalegrad as sg
    >>> cluster = sg.Cluster(workers=4, compute=sg.Exponential(1.0))
    >>> trace = sg.simulate(cluster, sg.KAsync(2), updates=10, seed=0)
    >>> len(trace.updates)
    10
"""

import lazy_loader

_named, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("stalegrad")
    return _named(name)
