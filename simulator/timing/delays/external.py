"""Delays of other libraries and of users: distributions of scipy.stats, and functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy

from stalegrad._core.delay import Delay, Floats
from stalegrad._core.functions import by_name, check_function_name, function_of, name_of
from stalegrad._core.specs import builtin, spec, unknown_name


@spec
class Scipy(Delay):
    """A ``scipy.stats`` distribution by name, e.g. ``Scipy("invgauss", {"mu": 0.5})``.

    A frozen distribution, ``compute=scipy.stats.invgauss(0.5)``, means the same.

    Args:
        name: name of a distribution of ``scipy.stats``.
        parameters: parameters of the distribution by name, finite numbers.

    Example:
        >>> from stalegrad.simulator import Scipy
        >>> Scipy("invgauss", {"mu": 0.5}).expectation()
        0.5
    """

    name: str
    parameters: Any = ()

    def check_fields(self) -> None:
        """Raise ValueError for unknown names, bad parameters or a support below 0."""
        if not isinstance(
            getattr(scipy.stats, self.name, None), scipy.stats.rv_continuous | scipy.stats.rv_discrete
        ):
            known = [n for n in dir(scipy.stats) if isinstance(getattr(scipy.stats, n), scipy.stats.rv_continuous)]
            raise ValueError(unknown_name("scipy.stats distribution", self.name, known))
        where = f"parameters of scipy.stats.{self.name}"
        object.__setattr__(self, "parameters", _named_numbers(where, self.parameters))
        given = dict(self.parameters)
        try:
            with np.errstate(all="ignore"):
                low = float(self.distribution().support()[0])
        except (TypeError, ValueError, ArithmeticError) as error:
            raise ValueError(f"{where} = {given} are not allowed: {error}") from None
        if np.isnan(low):
            raise ValueError(f"{where} = {given} are not allowed: the distribution does not exist for them")
        if low < 0:
            raise ValueError(f"scipy.stats.{self.name} has support from {low}: a time must not be negative")

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw times."""
        return np.asarray(self.distribution().rvs(size=size, random_state=rng), float)

    def distribution(self) -> Any:
        """Return the frozen distribution."""
        return getattr(scipy.stats, self.name)(**dict(self.parameters))

    def settings(self) -> dict[str, Any]:
        """Return the fields as plain tables."""
        return super().settings() | {"parameters": dict(self.parameters)}


def _named_numbers(where: str, parameters: Any) -> tuple[tuple[str, float], ...]:
    """Return parameters as sorted pairs of a name and a number."""
    pairs = list(parameters.items()) if isinstance(parameters, Mapping) else parameters
    wrong = f"{where} = {parameters!r:.200} is not allowed: give a table of names and numbers, e.g. {{'mu': 0.5}}"
    if not isinstance(pairs, Sequence) or isinstance(pairs, str | bytes):
        raise ValueError(wrong)
    plain = {}
    for pair in pairs:
        if not (isinstance(pair, Sequence) and len(pair) == 2 and isinstance(pair[0], str)) or isinstance(
            pair, str
        ):
            raise ValueError(wrong)
        value = builtin(pair[1])
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
            raise ValueError(f"{pair[0]} of {where} = {value!r:.60} is not allowed: give a finite number")
        plain[pair[0]] = value
    return tuple(sorted(plain.items()))


@spec
class Function(Delay):
    """A user's ``function(rng, size) -> times``, given directly or by its name, ``"module:function"``.

    The module of a name is imported, and so executed, when the first time is drawn.

    Args:
        function: function that takes a ``numpy.random.Generator`` and a size, and returns an array of times,
            (size,), in seconds; or its name, ``"module:function"``, as in a spec.

    Example:
        >>> import numpy as np
        >>> from stalegrad.simulator import Function
        >>> delay = Function(lambda rng, size: rng.choice([1.0, 5.0], size, p=[0.9, 0.1]))
        >>> sorted(set(delay.sample(np.random.default_rng(0), 1000).tolist()))
        [1.0, 5.0]
    """

    function: Any

    @property
    def ahead(self) -> bool:
        """False: the function may depend on the number of its calls."""
        return False

    def check_fields(self) -> None:
        """Raise ValueError unless ``function`` is callable or the name of a function."""
        if isinstance(self.function, str):
            check_function_name("function", self.function)
        elif not callable(self.function):
            raise ValueError(f"function = {self.function!r} is not callable: give function(rng, size)")
        else:
            object.__setattr__(self, "function", by_name(self.function))

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Call the function."""
        function = function_of(self.function)
        try:
            times = np.asarray(function(rng, size), float)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise ValueError(f"{self.function!r}, called as function(rng, size), raised {said}") from error
        if times.shape != (size,):
            raise ValueError(
                f"{self.function!r} must return {size} times, an array of that length; got {times.shape}"
            )
        return times

    def settings(self) -> dict[str, Any]:
        """Return the name of the function.

        Raises:
            ValueError: if the function has no name that can be imported.
        """
        return {"function": name_of(self.function)}
