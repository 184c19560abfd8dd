"""Networks as functions of plain pytrees, made from flax nnx modules.

Flax is imported when a network is made, so that problems can be named, listed and simulated without JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

from stalegrad._core.types import Params, PyTree, Stats

if TYPE_CHECKING:
    import jax
    from flax import nnx

Kind = Literal["images", "text"]

Norm = Literal["batch", "group"]
"""``batch``: batch norm (Ioffe and Szegedy 2015), which keeps running statistics; ``group``: group norm (Wu and
He 2018), which keeps none, with 32 groups, or fewer so that each has at least two channels."""

Layer: TypeAlias = "Callable[[jax.Array], jax.Array]"
"""A layer, an activation or a pooling: a function from inputs to outputs, with the batch along the first axis."""


class Apply(Protocol):
    """A network as a function; networks that keep statistics require ``stats``."""

    def __call__(self, params: Params, inputs: jax.Array, stats: Stats = ...) -> jax.Array:
        """Return one row of logits per input (for a text: per token)."""


class Network(NamedTuple):
    """A network on pytrees.

    Attributes:
        init: ``init(key) -> params``.
        apply: ``apply(params, inputs, stats={}) -> logits``, for evaluation; inputs (batch, height, width,
            channels), or tokens (batch, context) of a text.
        penalty: ``penalty(params) -> scalar``, added to the training loss (0 if there is none).
        train: ``train(params, inputs, stats) -> (logits, stats)``, for training.
        stats: initial running statistics of batch norm, a pytree; ``{}`` if there are none.
        width: for dense networks, the largest number of outputs of a layer for one input; evaluation then uses
            blocks as large as memory allows. None: it uses blocks that fit into the cache.
    """

    init: Callable[[jax.Array], Params]
    apply: Apply
    penalty: Callable[[Params], jax.Array]
    train: Callable[[Params, jax.Array, Stats], tuple[jax.Array, Stats]]
    stats: Stats
    width: int | None = None


@dataclass(frozen=True)
class Architecture:
    """An entry of the registry of networks.

    Args:
        make: ``make(input_shape, classes, **options) -> Network``; its keyword arguments, with type hints and
            defaults, are the options that a spec may give. It is called when a problem's data are loaded.
        takes: kind of inputs, ``images`` or ``text``.
    """

    make: Callable[..., Network]
    takes: Kind = "images"

    def __call__(self, input_shape: tuple[int, ...], classes: int, **options: Any) -> Network:
        """Make the network for inputs of a shape."""
        return self.make(input_shape, classes, **options)


def no_penalty(params: Params) -> jax.Array:
    """Return 0."""
    import jax.numpy as jnp

    return jnp.zeros(())


def from_module(
    make: Callable[[nnx.Rngs], Any],
    penalty: Callable[[Params], jax.Array] = no_penalty,
    width: int | None = None,
) -> Network:
    """Return the network of an nnx module; parameters and statistics are nested dicts of arrays."""
    import jax
    from flax import nnx

    module = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    module.train()
    training, *templates = nnx.split(module, nnx.Param, nnx.BatchStat)
    module.eval()
    evaluating, *_ = nnx.split(module, nnx.Param, nnx.BatchStat)

    def built(graph: nnx.GraphDef[nnx.Module], params: Params, stats: Stats) -> Any:
        states = [jax.tree.map(lambda leaf: leaf, template) for template in templates]
        for state, values in zip(states, (params, stats), strict=True):
            nnx.replace_by_pure_dict(state, values)
        return nnx.merge(graph, *states)

    def part(key: jax.Array, kind: type[nnx.Variable[jax.Array]]) -> PyTree:
        return nnx.to_pure_dict(nnx.state(make(nnx.Rngs(key)), kind))

    def apply(params: Params, inputs: jax.Array, stats: Stats = {}) -> jax.Array:  # noqa: B006, never changed
        logits: jax.Array = built(evaluating, params, stats)(inputs)
        return logits

    def train(params: Params, inputs: jax.Array, stats: Stats) -> tuple[jax.Array, Stats]:
        model = built(training, params, stats)
        logits = model(inputs)
        return logits, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))

    init = jax.jit(lambda key: part(key, nnx.Param))
    stats = jax.jit(lambda: part(jax.random.key(0), nnx.BatchStat))() if jax.tree.leaves(templates[1]) else {}
    return Network(init, apply, penalty, train, stats, width)
