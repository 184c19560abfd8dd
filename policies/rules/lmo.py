"""Steps of a norm's unit length: Muon and its relatives."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stalegrad._core.specs import NonNegativeFloat, PositiveInt
from stalegrad.policies.rules import parts
from stalegrad.policies.rules.hyperparameters import Decay, Norm, UnitInterval
from stalegrad.policies.rules.rule import Rule, decayed


def lmo_descent(
    *,
    averaging: Annotated[float, Field(gt=0, le=1)] | Literal["sqrt"] = 0.05,
    norm: Norm = "spectral",
    nesterov: bool = False,
    weight_decay: Decay = None,
) -> Rule:
    """Averaged gradients, and steps of unit length in a norm: m <- (1 - a) m + a d; theta += eta lmo(m).

    lmo(m) is the point of the norm's unit ball at which <m, x> is least. Needs no constant of the problem with
    ``threshold="sqrt"``, ``averaging="sqrt"`` and the schedule eta / (k + 1)^(3/4).

    Args:
        averaging: a; ``sqrt``: 1 / sqrt(k) at the k-th update. Muon has 0.05 (beta = 0.95).
        norm: ``spectral`` (Muon: five Newton-Schulz steps for matrices, signs for vectors), ``sign``, or
            ``euclidean``.
        nesterov: Nesterov's form, as in Muon.
        weight_decay: L2 decay at the server's parameters.
    """
    return Rule(parts.lmo.lmo_descent(averaging, norm, nesterov=nesterov), decayed(weight_decay))


def muon(
    *,
    beta: UnitInterval = 0.95,
    ns_steps: PositiveInt = 5,
    nesterov: bool = True,
    weight_decay: NonNegativeFloat = 0.0,
) -> Rule:
    """Muon at the server, that of optax: matrices by orthogonalised momentum, all other arrays by Adam.

    Of a matrix: m <- beta m + (1 - beta) g; M = (1 - beta) g + beta m (without Nesterov: m), corrected for bias;
    W <- W - eta (s orth(M) + weight_decay W), orth by Newton-Schulz steps, s a factor that depends on W's shape.

    Args:
        beta: decay of the momentum.
        ns_steps: Newton-Schulz steps.
        nesterov: Nesterov's form.
        weight_decay: decay of matrices, decoupled from the gradient.
    """
    from stalegrad.policies.optimizers import Optimizer

    options = {"beta": beta, "ns_steps": ns_steps, "nesterov": nesterov, "weight_decay": weight_decay}
    return Rule(Optimizer({"name": "optax.contrib:muon", **options}))
