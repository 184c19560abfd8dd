"""What a rule is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from stalegrad.policies.rules import parts
from stalegrad.policies.rules.hyperparameters import Decay

if TYPE_CHECKING:
    import optax

    from stalegrad.policies.optimizers import Built, Optimizer
    from stalegrad.policies.rules.parts.look_ahead import LookAhead
    from stalegrad.policies.rules.parts.staleness_weights import StalenessWeight
    from stalegrad.policies.rules.parts.tables import Table
    from stalegrad.policies.rules.parts.work import Work


class Rule(NamedTuple):
    """A rule's parts; see the folder.

    Attributes:
        optimizer: an optax transformation of the mean message, whose step the learning rate multiplies, or an
            :class:`~stalegrad.policies.optimizers.Optimizer`, built or not; None: gradient descent.
        correction: transformation of each message.
        weight: factors from staleness alone, computed on the host.
        look_ahead: what is sent; None: the parameters.
        single: takes updates of one message only (it keeps state per worker, or looks ahead for one).
        own_reads: the point sent depends on the worker, so that each version may be read by the worker
            that made it only.
        work: what workers do that keep their own state; None: gradients at what they read.
        displaces: messages are displacements, not gradients: the learning rate has acted already.
        table: rows per worker, whose mean takes the place of the mean message; None: none.

    Example:
        >>> import optax
        >>> from stalegrad.policies import Rule
        >>> rule = Rule(correction=optax.clip_by_global_norm(1.0))
        >>> rule.optimizer is None, rule.single  # gradient descent with any number of messages
        (True, False)
    """

    optimizer: optax.GradientTransformation | Optimizer | Built | None = None
    correction: optax.GradientTransformation | None = None
    weight: StalenessWeight | None = None
    look_ahead: LookAhead | None = None
    single: bool = False
    own_reads: bool = False
    work: Work | None = None
    displaces: bool = False
    table: Table | None = None


def chain(*chained: optax.GradientTransformation | None) -> optax.GradientTransformation | None:
    """Chain the parts that are there; None if there are none."""
    there = [part for part in chained if part is not None]
    if not there:
        return None
    import optax

    return optax.chain(*there)


def decayed(rate: Decay) -> optax.GradientTransformation | None:
    """Return L2 weight decay at the server's parameters, or None."""
    return None if rate is None else parts.corrections.weight_decay(rate)
