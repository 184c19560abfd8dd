"""``stalegrad init``: a commented example of an experiment, or the protocol of a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stalegrad.simulator.cli.console import check_new, print_plainly

EXAMPLE = """\
# An experiment of stalegrad. Run it:  stalegrad run THIS_FILE -o results/first
# What else there is to choose from:   stalegrad list

# When to stop; exactly one of:
wallclock = 6000.0       # simulated seconds (about half a minute of real time)
# updates = 2_000        # server updates
# gradients = 8_000      # used mini-batch gradients

seed = 0                 # the same file gives the same bytes

[problem]
model = "mlp"            # or "softmax-regression"
dataset = "fashion-mnist-small"   # comes with the package; "fashion-mnist" and "mnist" are downloaded
batch_size = 32          # of one worker
hidden = [64]
# sampling = "sharded"   # "epochs" (default): one shuffled stream for all; "iid"; "sharded" by worker
# partition = { partition = "dirichlet", alpha = 0.1 }   # shards that differ in their classes; docs/data.md
# batches = "by-message"   # a message that is dropped loses its data

[cluster]
workers = 16
# How long one gradient takes, in seconds: one delay for all, or a list of one per worker.
compute = { delay = "shifted-exponential", shift = 1.0, scale = 1.0 }
# compute = { delay = "correlated", phi = 0.7, base = { delay = "gamma", mean = 1.0, cv = 0.5 } }   # with memory
# compute = { delay = "recorded", file = "steps.csv" }   # measured: columns worker, step, seconds; docs/delays.md
# speeds = [1.0, 1.0, ...]   # a worker of speed 2 needs half the time
# uplink = 0.1               # seconds from worker to server: a number or a delay, or a list of one per worker
# downlink = 0.1             # and back
# server = 0.01              # seconds the server spends on each message, one at a time
# server_update = 0.2        # seconds of each update
# join = { delay = "uniform", low = 0.0, high = 100.0 }

# [cluster.availability]       # workers that leave and return; what they are at is lost
# availability = "renewal"
# up = { delay = "exponential", scale = 3600.0 }
# down = { delay = "exponential", scale = 600.0 }

# [cluster.network]          # transfers take time; docs/links.md
# message_bytes = "model"    # bytes of the parameters, or a number
# upload = 125e6             # bytes per second of a worker's link; and download
# ingress = 1.25e9           # of the server, shared by all workers; and egress
# sharing = "fair"           # or "fifo": one transfer at a time

[method]
name = "k-async"         # sync, k-sync, k-batch-sync, async, k-async, k-batch-async
k = 4                    # messages in an update
learning_rate = 0.05     # or a schedule:
# learning_rate = { schedule = "step-decay", peak = 0.05, milestones = [5, 8], factor = 0.1, unit = "epochs" }
# optimizer = { name = "sgd", momentum = 0.9 }   # any optax optimizer, at the server
# weight_decay = 1e-4

[record]
wallclock = 20.0         # seconds between two rows of the history (or updates, or gradients)
gap = true               # distance between what a gradient was computed at and what it is applied to

# A sweep: every combination of these lists is run once and kept in the directory; the same command goes on where
# it was interrupted. How many runs that is, and how long they take: stalegrad run THIS_FILE -o runs --dry-run
# [sweep]
# method = ["async", "k-async", "sync"]   # the learning rate and all else is as above
# "method.k" = [2, 4, 8]       # only where the method has it
# "cluster.workers" = [8, 16]
# seed = [0, 1, 2]
# mode = "zip"                 # the first values of all lists, the second ones, ...; "grid": all combinations
# mode = "random"              # number of samples, each value drawn from its list or range:
# samples = 30
# "method.learning_rate" = { low = 0.001, high = 1.0, log = true }
"""


def init_command(
    spec: Annotated[Path, typer.Argument(help="The TOML file to write.")] = Path("spec.toml"),
    paper: Annotated[
        str | None, typer.Option(help="Write the protocol of this paper; stalegrad list papers names them.")
    ] = None,
) -> None:
    """Write a commented example of an experiment, or the protocol of a paper."""
    from stalegrad.simulator.cli.protocols import protocol

    check_new(spec)
    text, example = (EXAMPLE, "results/first") if paper is None else (protocol(paper), f"runs/{paper}")
    spec.write_text(text, encoding="utf-8")
    print_plainly(f"wrote {spec}; run it: stalegrad run {spec} -o {example}")
    if paper is not None:
        print_plainly("How many runs that is, and how long they take: add --dry-run")
