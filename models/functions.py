"""Checks of what the user's functions return, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import jax
import jax.numpy as jnp

from stalegrad._core.trees import like
from stalegrad._core.types import Batch, Data, Params, PyTree
from stalegrad.models.streams import Stream, first_examples, on_device

FLOATS = ("float16", "bfloat16", "float32", "float64")
"""Types that parameters may have."""

BLOCK = 256
"""Number of examples of a stream with which an evaluation is checked."""


class _WrongReturnError(ValueError):
    """Error: a function returned a value that is not allowed."""


@contextmanager
def _calling(call: str, function: Callable[..., object], must: str) -> Iterator[None]:
    """Turn an error of a user's function into one that names the function and what it must return."""
    try:
        yield
    except _WrongReturnError:
        raise
    except Exception as error:
        name = getattr(function, "__qualname__", repr(function))
        reason = (str(error).splitlines() or [""])[0]
        if isinstance(error, jax.errors.JAXTypeError):  # a NumPy function or an `if` on values not yet known
            must = "it is compiled by JAX: use jax.numpy, and no Python branches, on what depends on its arguments"
        raise ValueError(
            f"{call} of the problem ({name}) raised {type(error).__name__}: {reason}; {must}"
        ) from error


def check_data(name: str, data: Data) -> Data:
    """Return a data set on the device.

    Args:
        name: ``train`` or ``test``.
        data: pytree of arrays with a common first axis, a stream, or None.

    Raises:
        ValueError: if there are no arrays, or they have different lengths, no examples, or no numbers.
    """
    if data is None or isinstance(data, Stream):
        return data
    try:
        placed = on_device(data)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is not allowed: it must be a pytree of arrays of numbers ({error})") from None
    leaves = jax.tree.leaves(placed)
    if not leaves or any(leaf.ndim == 0 for leaf in leaves):
        raise ValueError(f"{name} is not allowed: it needs arrays whose first axis counts the examples")
    lengths = {len(leaf) for leaf in leaves}
    if len(lengths) > 1:
        raise ValueError(f"{name} has arrays of different lengths: {sorted(lengths)}")
    if lengths == {0}:
        raise ValueError(f"{name} is not allowed: it has no examples")
    return placed


def check_functions(
    init: Callable[[jax.Array], Params],
    loss: Callable[[Params, Batch, jax.Array], jax.Array],
    evaluate: Callable[[Params, Batch], Mapping[str, jax.Array]],
    train: Data,
    test: Data,
    batch_size: int,
    gradient: Callable[[Params, Batch, jax.Array], Params] | None = None,
) -> None:
    """Check the functions of a problem by abstract evaluation, with shapes in place of numbers.

    Args:
        init: ``init(key) -> params``.
        loss: ``loss(params, batch, key) -> scalar``.
        evaluate: ``evaluate(params, data) -> {"loss": scalar, ...}``.
        train: training data on the device, a stream, or None.
        test: test data, as ``train``.
        batch_size: number of examples in a mini-batch.
        gradient: ``gradient(params, batch, key) -> params``; None: the derivative of the loss.

    Raises:
        ValueError: if a function returns a wrong value; the error names it and what it must return.
    """
    key = jax.random.key(0)
    params = _check_init(init, key)

    must = "it must return a scalar" + (" that can be differentiated in params" if gradient is None else "")

    def checked_loss(params: Params, batch: Batch, key: jax.Array) -> jax.Array:
        value = loss(params, batch, key)
        _check_scalar("loss(params, batch, key)", value, "one number of a floating type, without an axis")
        return value

    with _calling("loss(params, batch, key)", loss, must):
        derived = checked_loss if gradient is not None else jax.grad(checked_loss)
        jax.eval_shape(derived, params, _examples(train, batch_size), key)
    if gradient is not None:
        _check_gradient(gradient, params, _examples(train, batch_size), key)
    for data in (train, test):
        if data is None and data is not train:
            continue
        with _calling("evaluate(params, data)", evaluate, 'it must return {"loss": scalar, ...}'):
            found = jax.eval_shape(evaluate, params, _examples(data, BLOCK if isinstance(data, Stream) else None))
        if not isinstance(found, Mapping) or "loss" not in found:
            raise _WrongReturnError(
                f"evaluate(params, data) of the problem returned {_shown(found)}: it must return a dict with "
                '"loss" and scalars'
            )
        for name, value in found.items():
            if jnp.shape(value) != ():
                raise _WrongReturnError(
                    f'"{name}" of evaluate(params, data) of the problem is {_shown(value)}: it must be a scalar'
                )


def _check_init(init: Callable[[jax.Array], Params], key: jax.Array) -> Params:
    must = "it must return a pytree of arrays of a floating type"
    with _calling("init(key)", init, must):
        try:
            params = jax.eval_shape(init, key)
        except jax.errors.JAXTypeError:  # init needs concrete numbers
            computed = init(key)
            params = jax.eval_shape(lambda: computed)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not sum(leaf.size for _, leaf in leaves):
        raise _WrongReturnError(f"init(key) of the problem returned {_shown(params)}, without a number: {must}")
    for path, leaf in leaves:
        if str(leaf.dtype) not in FLOATS:
            raise _WrongReturnError(
                f"init(key) of the problem returned {_shown(leaf)} at params{jax.tree_util.keystr(path)}: {must} "
                f"({', '.join(FLOATS)})"
            )
    return params


def _check_gradient(gradient: Callable[..., Params], params: Params, batch: Batch, key: jax.Array) -> None:
    must = "it must return arrays of the shapes of params"
    with _calling("gradient(params, batch, key)", gradient, must):
        found = jax.eval_shape(gradient, params, batch, key)
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (found, params)]
    if shapes[0] != shapes[1]:
        returned, allowed = (f"{tree!s:.200}" for tree in shapes)
        raise _WrongReturnError(
            f"gradient(params, batch, key) of the problem returned the shapes {returned}: {must}, {allowed}"
        )


def with_gradient(
    loss: Callable[[Params, Batch, jax.Array], jax.Array], gradient: Callable[[Params, Batch, jax.Array], Params]
) -> Callable[[Params, Batch, jax.Array], jax.Array]:
    """Return the loss with ``gradient(params, batch, key)`` in place of its derivative."""

    @jax.custom_vjp
    def own(params: Params, batch: Batch, key: jax.Array) -> jax.Array:
        return loss(params, batch, key)

    def forward(params: Params, batch: Batch, key: jax.Array) -> tuple[jax.Array, Params]:
        return loss(params, batch, key), like(gradient(params, batch, key), params)

    def backward(slope: Params, cotangent: jax.Array) -> tuple[Params, None, None]:
        return jax.tree.map(lambda leaf: cotangent.astype(leaf.dtype) * leaf, slope), None, None

    own.defvjp(forward, backward)
    return own


def _check_scalar(call: str, value: PyTree, must: str) -> None:
    alone = [value is leaf for leaf in jax.tree.leaves(value)] == [True]
    try:
        scalar = alone and jnp.shape(value) == () and jnp.issubdtype(jnp.result_type(value), jnp.floating)
    except TypeError:
        scalar = False
    if not scalar:
        raise _WrongReturnError(f"{call} of the problem returned {_shown(value)}: it must return {must}")


def _shown(value: object) -> str:
    """Return the type and shape of an array, or the type of anything else."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"an array of type {value.dtype} and shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def _examples(data: Data, count: int | None) -> Batch:
    """Return the shapes of ``count`` examples, or of all if it is None."""
    if isinstance(data, Stream):
        data = first_examples(data, min(count or len(data), len(data)))
        count = None
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct((count or len(a), *a.shape[1:]), a.dtype), data)
