"""Train the networks with the sequential baseline and compare with their known accuracy; write a Markdown page.

    python scripts/accuracy.py [--only NAME ...] [--out docs/accuracy.md]

Needs Fashion-MNIST (downloaded, or from the Debian package), and CIFAR-10 for ``resnet-20``.
"""

import argparse
import platform
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from stalegrad.models import Problem
from stalegrad.models.datasets import load_text
from stalegrad.policies import Cosine, Method, Schedule, methods
from stalegrad.simulator import Cluster, Deterministic, Experiment, Record, Result, run

HEAD = """\
# Accuracy of the networks

`python scripts/accuracy.py` writes this page: one worker, plain SGD or SGD with momentum (Adam for the
transformer), one seed, on real data. The results show that models, data and replay work on real tasks; they
are not records.

| model | data | batch | epochs | learning rate | test result | target | minutes |
|---|---|---|---|---|---|---|---|
"""


class Case(NamedTuple):
    """One row of the table: a problem, its training, and the test error (or loss) to reach, if any."""

    problem: Problem
    epochs: float
    learning_rate: Schedule
    optimizer: dict[str, object]
    limit: float | None
    column: str = "test_error"
    weight_decay: float | None = None


def cosine(peak: float, epochs: float) -> Cosine:
    """Return a learning rate that falls from ``peak`` to 0 over ``epochs`` epochs."""
    return Cosine(peak, epochs, unit="epochs")


def bigram_loss(context: int) -> float:
    """Return the test loss, in nats, of a bigram model of characters with add-one smoothing."""
    text = load_text("shakespeare")
    size = len(text.vocabulary)
    inputs, targets = (np.asarray(part).ravel() for part in text.sequences("train", context))
    counts = np.ones((size, size))
    np.add.at(counts, (inputs, targets), 1)
    inputs, targets = (np.asarray(part).ravel() for part in text.sequences("test", context))
    return float(-np.log(counts / counts.sum(1, keepdims=True))[inputs, targets].mean())


def cases() -> dict[str, Case]:
    """Return the cases by name."""
    momentum = {"name": "sgd", "momentum": 0.9}
    # On CPU, the number of epochs that two cores compute in an hour.
    long, goal = (11, None) if jax.default_backend() == "cpu" else (100, 0.09)

    def images(model: str, data: str = "fashion-mnist", batch: int = 64, **options: object) -> Problem:
        return Problem(model, data, batch_size=batch, **options)

    return {
        "softmax-regression": Case(images("softmax-regression"), 10, cosine(0.1, 10), {"name": "sgd"}, 0.16),
        "mlp": Case(images("mlp", hidden=[128]), 10, cosine(0.05, 10), momentum, 0.12),
        "lenet-adasync": Case(images("lenet-adasync"), 20, cosine(0.03, 20), momentum, 0.10, weight_decay=5e-4),
        "transformer": Case(
            Problem("transformer", "shakespeare", batch_size=16, context=64, layers=2, width=96),
            4,
            cosine(2e-3, 4),
            {"name": "adam"},
            bigram_loss(64),
            "test_loss",
        ),
        "resnet-20": Case(
            images("resnet-20", "cifar-10", 128, norm="batch", augment=True),
            long,
            cosine(0.1, long),
            momentum,
            goal,
        ),
    }


def train(case: Case, checkpoint: Path) -> tuple[Result, float]:
    """Run a case, or continue an interrupted one; return the result and the minutes of real time."""
    method: Method = methods.async_(
        learning_rate=case.learning_rate, optimizer=case.optimizer, weight_decay=case.weight_decay
    )
    examples = case.problem.objective().examples
    gradients = round(case.epochs * examples / case.problem.batch_size)
    start = time.perf_counter()
    experiment = Experiment(
        case.problem,
        Cluster(1, compute=Deterministic(1.0)),
        method,
        updates=gradients,
        record=Record(updates=-(-gradients // 12), gap=False, train_examples=10_000),
    )
    return run(experiment, checkpoint=checkpoint), (time.perf_counter() - start) / 60


def line(name: str, case: Case, picture: Path) -> tuple[str, str]:
    """Return a case's row of the table and its curve as text; draw the curve, too."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = picture.with_suffix(".checkpoint")
    result, minutes = train(case, checkpoint)
    checkpoint.unlink(missing_ok=True)
    found = float(result.history[case.column].iloc[-1])
    accuracy = case.column == "test_error"
    shown = f"accuracy {1 - found:.4f}" if accuracy else f"loss {found:.4f} nats"
    goal = "none"
    if case.limit is not None:
        goal = f"{1 - case.limit:.2f}" if accuracy else f"{case.limit:.4f} (bigrams)"
        goal += ": reached" if found <= case.limit else ": **not reached**"
    options = ", ".join(f"{k}={v}" for k, v in case.problem.options.items())
    what = f"{name}({options})" if options else name
    optimizer = " ".join(map(str, case.optimizer.values()))
    decay = "" if case.weight_decay is None else f", weight decay {case.weight_decay:g}"
    rate = f"{case.learning_rate.peak:g}, cosine, {optimizer}{decay}"
    row = (
        f"| {what} | {case.problem.dataset} | {case.problem.batch_size} | {case.epochs:g} | {rate} | {shown} | "
        f"{goal} | {minutes:.1f} |"
    )
    history = result.history
    curve = ", ".join(f"{e:.1f}: {v:.4f}" for e, v in zip(history["epoch"], history[case.column], strict=True))
    result.plot(x="epoch", y=case.column).figure.savefig(picture, dpi=110)
    words = f"{name} (execution `{result.execution}`), {case.column.replace('_', ' ')} by epoch"
    return row, f"* {words} ([picture]({picture.name})): {curve}"


def main() -> None:
    """Train the chosen cases and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    all_cases = cases()
    parser.add_argument("--only", nargs="+", choices=all_cases, default=[n for n in all_cases if n != "resnet-20"])
    parser.add_argument("--out", type=Path, default=Path("docs/accuracy.md"))
    a = parser.parse_args()
    pictures = {name: a.out.with_name(f"{a.out.stem}-{name}.png") for name in a.only}
    rows, curves = zip(*(line(name, all_cases[name], pictures[name]) for name in a.only), strict=True)
    machine = f"{platform.machine()}, {jax.devices()[0].device_kind}, jax {jax.__version__}."
    text = HEAD + "\n".join(rows) + f"\n\nMeasured on: {machine}\n\n" + "\n".join(curves) + "\n"
    a.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
