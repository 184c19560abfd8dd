"""Functions that specs name: a delay, an optimizer, columns of the history, and an interruption."""

import os
import signal
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import optax

COUNTDOWN = "STALEGRAD_GOLDEN_COUNTDOWN"
"""Environment variable: evaluations until the process interrupts itself; absent: it does not. It is no variable of
this module, because the identity of a run covers what its functions use."""

NEVER = 1_000_000


@contextmanager
def countdown(evaluations):
    """Let the process interrupt itself after some evaluations; give a function that returns how many were made."""
    made = None
    os.environ[COUNTDOWN] = str(evaluations)
    try:
        yield lambda: made if made is not None else evaluations - int(os.environ[COUNTDOWN])
    finally:
        made = evaluations - int(os.environ.pop(COUNTDOWN))


def waiting_times(rng, size):
    """Return the sum of two exponential times and a constant."""
    return 0.25 + rng.exponential(0.5, (2, size)).sum(axis=0)


def polyak():
    """Return an optimizer that uses the loss of the mini-batch."""
    return optax.polyak_sgd(max_learning_rate=0.1)


def columns(params):
    """Return the sum and the largest magnitude of all parameters."""
    leaves = jax.tree.leaves(params)
    return {"total": sum(leaf.sum() for leaf in leaves), "largest": max(jnp.abs(leaf).max() for leaf in leaves)}


def interrupting_columns(params):
    """Return :func:`columns`; when the countdown ends, send this process an interrupt."""
    if COUNTDOWN in os.environ:
        left = int(os.environ[COUNTDOWN]) - 1
        os.environ[COUNTDOWN] = str(left)
        if left == 0:
            os.kill(os.getpid(), signal.SIGINT)
    return columns(params)
