"""The server's optimizer: what a spec may say of it, and how a run builds it.

The learning rate of an update goes *into* an optimizer that is built from one (``optax.NAME(learning_rate=...)``,
a function with a parameter ``learning_rate``), so steps that are not linear in it, or keep it in a momentum, are
optax's own. The step of a ready-made transformation is multiplied by it: build that with learning rate 1.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stalegrad._core.functions import by_name, check_function_name, import_function, is_function_name
from stalegrad._core.specs import shown, unknown_name
from stalegrad._core.types import Params, PyTree, Scalar, Table

Make: TypeAlias = Callable[..., optax.GradientTransformation]
"""A function that makes an optimizer, such as ``optax.adam``."""

Choice: TypeAlias = "str | Table | Make | optax.GradientTransformation"
"""An optimizer as a spec keeps it, see :func:`check_optimizer`."""

NOT_LINEAR = ("fromage", "rprop")
"""Optimizers of optax whose step is not proportional to the learning rate."""

_PROBE = {"w": np.array([[0.3, -1.2, 0.5], [2.0, 0.1, -0.7]], np.float32), "b": np.array([0.4, -0.6], np.float32)}


class Built(NamedTuple):
    """An optimizer as a run uses it.

    Attributes:
        at: ``learning rate -> transformation``; the learning rate may be a tracer.
        inside: whether the learning rate acts inside the transformation; otherwise its step is multiplied by it.
    """

    at: Callable[[Scalar], optax.GradientTransformationExtraArgs]
    inside: bool


class Optimizer(NamedTuple):
    """An optimizer as a rule holds it: a run builds it, and only then imports a ``module:function``.

    Attributes:
        spec: as of :func:`check_optimizer`.
        weight_decay: L2 decay added to the mean message first; None: none.
    """

    spec: Choice
    weight_decay: float | None = None

    def build(self) -> Built:
        """Return the optimizer for a run.

        Raises:
            ValueError: as :func:`check_optimizer`, or if a ``module:function`` cannot be imported or returns no
                optax transformation.
        """
        spec = check_optimizer(self.spec)
        if isinstance(spec, optax.GradientTransformation):
            return self._decayed(lambda rate: spec, False)
        if callable(spec):
            arguments, function = Table(), spec
        else:
            arguments = _arguments(spec)
            name = arguments.pop("name")
            function = import_function(name) if is_function_name(name) else getattr(optax, name)
            _check_signature(name, function, arguments)
        inside = "learning_rate" in inspect.signature(function).parameters
        return self._decayed(functools.partial(_made, spec, function, arguments, inside), inside)

    def _decayed(self, make: Callable[[Scalar], optax.GradientTransformation], inside: bool) -> Built:
        def at(rate: Scalar) -> optax.GradientTransformationExtraArgs:
            if self.weight_decay is None:
                return optax.with_extra_args_support(make(rate))
            return optax.chain(optax.add_decayed_weights(self.weight_decay), make(rate))

        return Built(at, inside)


def _made(
    spec: Choice, function: Make, arguments: Table, inside: bool, rate: Scalar
) -> optax.GradientTransformation:
    made = function(**({"learning_rate": rate} if inside else {}), **arguments)
    if not isinstance(made, optax.GradientTransformation):
        raise ValueError(f"optimizer = {spec!r} returned {made!r}: it must return an optax transformation")
    return made


def build_optimizer(value: optax.GradientTransformation | Optimizer | Built | None) -> Built:
    """Return the optimizer of a rule for a run; a transformation takes the learning rate from outside."""
    if isinstance(value, Built):
        return value
    if value is None:
        value = optax.sgd(1.0)
    if isinstance(value, Optimizer):
        return value.build()
    return Built(lambda rate: optax.with_extra_args_support(value), False)


def check_optimizer(value: object) -> Choice:
    """Return an optimizer as a spec keeps it; nothing is imported.

    Args:
        value: one of

            * the name of an optax optimizer of :func:`optimizer_names`: ``"sgd"``, ``"adam"``, ...;
            * ``"package.module:function"``, a function that returns an optax transformation. It is called with
              ``learning_rate`` (of the update, a traced number) if it has such a parameter;
            * a table of one of these names and further arguments: ``{"name": "adam", "b1": 0.9}``;
            * the function itself, or a ``functools.partial`` of it: kept by its name if it has one;
            * an optax transformation built with learning rate 1.

    Names mean optax's own formulas, which differ from PyTorch's: ``rmsprop`` has eps inside the root, decay 0.9
    (PyTorch: alpha 0.99), and a momentum that holds the learning rate; ``adagrad`` starts its accumulator at 0.1
    (PyTorch: 0) and has eps = 1e-7 inside the root (1e-10 outside); ``amsgrad`` takes the maximum of
    bias-corrected second moments (PyTorch corrects the maximum of raw ones); ``radam`` adds eps to the root of the
    bias-corrected second moment (PyTorch to that of the raw one). ``rprop`` takes the first update's learning rate
    as its initial step size, and ignores the others.

    Raises:
        ValueError: for an unknown name, arguments that it does not take, or a transformation that needs what an
            asynchronous update cannot give.
    """
    if isinstance(value, optax.GradientTransformation):
        _check_transformation(value)
        return value
    value = _named(value)
    if callable(value):
        _check_signature(value, value, {})
        return value
    if not isinstance(value, str | Mapping):
        raise ValueError(
            f"optimizer = {value!r} is not allowed: give a name, a table, a function of learning_rate, or an "
            "optax transformation of learning rate 1"
        )
    arguments = _arguments(value)
    name = arguments.pop("name", None)
    if isinstance(name, str) and ":" in name:
        check_function_name("optimizer", name)
        if "learning_rate" in arguments:
            raise ValueError(f"learning_rate of optimizer {name!r} is not allowed: it is the method's")
    else:
        _check_alias(name, arguments)
    return value if isinstance(value, str) else {"name": name, **arguments}


def _named(value: object) -> object:
    """Return a function by the name that specs keep, and a partial one of plain arguments as a table."""
    if isinstance(value, functools.partial) and not value.args:
        name = _named(value.func)
        plain = all(isinstance(argument, bool | int | float | str) for argument in value.keywords.values())
        return {"name": name, **value.keywords} if isinstance(name, str) and plain else value
    if not callable(value):
        return value
    name = getattr(value, "__name__", None)
    return name if name in optimizer_names() and getattr(optax, name) is value else by_name(value)


def _arguments(value: str | Mapping[str, Any]) -> Table:
    return {"name": value} if isinstance(value, str) else dict(value)


def _check_alias(name: object, arguments: Table) -> None:
    known = optimizer_names()
    if name not in known:
        raise ValueError(unknown_name("optimizer", name, known))
    function = getattr(optax, name)
    allowed = [p for p in inspect.signature(function).parameters if p != "learning_rate"]
    for key in arguments:
        if key not in allowed:
            raise ValueError(unknown_name(f"parameter of optimizer {name!r}:", key, allowed))
    try:
        made = function(learning_rate=1.0, **arguments)
        jax.eval_shape(lambda leaf: made.update(leaf, made.init(leaf), leaf), jnp.ones(2))
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"optimizer {name!r} does not work with {shown(arguments)}: {error}") from None


def _check_signature(name: object, function: Make, arguments: Table) -> None:
    """Raise ValueError unless a function can be called with these arguments and ``learning_rate``."""
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in arguments:
        if key not in parameters and not takes_any:
            raise ValueError(unknown_name(f"parameter of optimizer {name!r}:", key, parameters))
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    for p in parameters.values():
        missing = p.default is p.empty and p.kind not in variable
        if missing and p.name != "learning_rate" and p.name not in arguments:
            raise ValueError(
                f"optimizer = {name!r} needs {p.name}: the one argument that a run gives is called learning_rate"
            )


@functools.lru_cache(maxsize=256)
def _check_transformation(made: optax.GradientTransformation) -> None:
    """Raise ValueError for a transformation that no update can be made with, or that is not linear in its rate."""
    try:
        needs_loss(build_optimizer(made), _PROBE)
        for name in NOT_LINEAR:
            theirs = getattr(optax, name)(1.0)
            if _state(made) == _state(theirs) and all(map(np.array_equal, _steps(made), _steps(theirs))):
                raise _NotAllowedError(
                    f"optimizer = optax.{name}(1.0) is not allowed: its step is not proportional to the learning "
                    f'rate; give "{name}" or the function optax.{name}, which is told that of every update'
                )
    except _NotAllowedError:
        raise
    except Exception:  # it is made for other parameters than these
        return


def _state(made: optax.GradientTransformation) -> list[tuple[int, ...]]:
    """Return the shapes of a transformation's state."""
    return [leaf.shape for leaf in jax.tree.leaves(jax.eval_shape(made.init, _PROBE))]


def _steps(made: optax.GradientTransformation) -> list[np.ndarray]:
    """Return the parameters after three steps on a sum of sines, leaf by leaf."""
    with jax.ensure_compile_time_eval():
        params, state = _PROBE, made.init(_PROBE)
        for _ in range(3):
            step, state = made.update(jax.tree.map(jnp.cos, params), state, params)
            params = optax.apply_updates(params, step)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(params)]


class _NotAllowedError(ValueError):
    """A transformation with which no update can be made as it should."""


def needs_loss(optimizer: Built, params: Params) -> bool:
    """Return whether an optimizer uses ``value`` or ``grad``, the loss and the gradient that it is told.

    Raises:
        ValueError: if it needs an argument that an asynchronous update cannot give, such as ``value_fn``.
    """

    def step(params: Params, value: jax.Array, grad: Params) -> PyTree:
        made = optimizer.at(jnp.ones(()))
        told = {"worker": jnp.int32(0), "staleness": jnp.int32(0), "learning_rate": jnp.ones(())}
        return made.update(params, made.init(params), params, value=value, grad=grad, **told)

    try:
        traced = jax.make_jaxpr(step)(params, jnp.ones(()), params).jaxpr
    except (TypeError, ValueError) as error:
        found = re.search(r"missing \d+ required keyword-only arguments?: (.*)|(\w+) must be provided", str(error))
        if found is None:
            raise
        missing = found[1] or found[2]
        raise _NotAllowedError(
            f"the optimizer needs {missing}, which the server of an asynchronous run cannot give: it is told "
            "value (the mean loss of the update's mini-batches) and grad (their mean gradient), but has no data"
        ) from None
    ours = traced.invars[len(jax.tree.leaves(params)) :]
    used = [*traced.outvars, *(argument for equation in traced.eqns for argument in equation.invars)]
    return any(argument is our for argument in used for our in ours)


@functools.cache
def optimizer_names() -> tuple[str, ...]:
    """Return the optax optimizers that take a learning rate and nothing else that is compulsory."""
    names = []
    deprecated = {"noisy_sgd", "optimistic_adam"}
    for name, function in sorted(vars(optax).items()):
        made = function.func if isinstance(function, functools.partial) else function  # nadamw, say, of adamw
        if not inspect.isfunction(made) or name.startswith("scale_by") or name in deprecated:
            continue
        parameters = inspect.signature(function).parameters
        required = [p.name for p in parameters.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        if required == ["learning_rate"]:
            names.append(name)
    return tuple(names)
