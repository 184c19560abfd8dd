"""Measured times: a delay that draws from them, text files of them, and factors that are part of the package."""

from __future__ import annotations

import functools
import importlib.resources
import math
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from stalegrad._core.delay import Delay, Floats
from stalegrad._core.specs import PositiveFloat, PositiveInt, spec, unknown_name, validate
from stalegrad.simulator.timing.delays.reading import checksum, numbers, path_of, read

INLINE_SAMPLES = 1_000
"""Largest number of measured values in a spec; more are kept in a file."""

ALLOWED = "one time a line, a finite number of seconds of at least 0; a comment starts with #"
"""Allowed content of a file of times."""


@spec
class Empirical(Delay):
    """Draws with replacement from measured times.

    Args:
        samples: measured times in seconds: a list, an array, or a column of a DataFrame.
        file: path of a text file in place of ``samples`` (UTF-8, at most 64 MiB), with one time per line; blank
            lines and the text after a ``#`` are skipped.
        sha256: checksum of the file, if it is to be verified; filled in when the file is read.
        weights: relative weight of each of ``samples``; by default equal.

    Raises:
        ValueError: for a value that is not allowed; it names the sample, or the file and its line.
        FileNotFoundError: if there is no such file.

    Example:
        >>> from stalegrad.simulator import Empirical
        >>> Empirical([1.0, 3.0], weights=[3, 1]).expectation()
        1.5
    """

    samples: Any = ()
    file: Any = None
    sha256: str | None = None
    weights: Any = ()

    @classmethod
    def measured(cls, name: str, median: PositiveFloat = 1.0) -> Self:
        """Return a measured delay that is part of the package, scaled to ``median`` seconds.

        ``nn-training-times``: times of 995,328 trainings of a network, divided by the median of four repetitions,
        as 346 weighted values that keep mean and maximum exactly and the quantiles to 0.2 % (see its file).
        """
        factors, weights = load_factors(name)
        scale = validate("median", PositiveFloat, median)
        return cls(samples=tuple(scale * factor for factor in factors), weights=tuple(weights))

    @classmethod
    def thinned(cls, samples: npt.ArrayLike, most: PositiveInt = 1_000) -> Self:
        """Return a delay of at most ``most`` weighted values that represent any number of measured times.

        Up to 1,000 times (the limit of a spec) are kept unchanged. If there are more, the sorted times are divided
        into groups, and each group becomes its mean. Groups are single times at either end and grow towards the
        middle: mean, minimum and maximum are kept, and a quantile changes by at most the width of its group.

        Args:
            samples: measured times, in seconds.
            most: largest number of values, 64 to 1,000.
        """
        if isinstance(most, bool) or not isinstance(most, int) or not 64 <= most <= INLINE_SAMPLES:
            raise ValueError(f"most = {most!r} is not allowed: a whole number of 64 to {INLINE_SAMPLES}")
        times = np.sort(numbers("samples of empirical", samples))
        if len(times) <= INLINE_SAMPLES:
            return cls(samples=times)
        edges = _group_edges(len(times), most)
        sizes = np.diff(edges)
        means = np.add.reduceat(times, edges[:-1]) / sizes
        return cls(samples=np.clip(means, times[edges[:-1]], times[edges[1:] - 1]), weights=sizes)

    def check_fields(self) -> None:
        """Read the file, if one is given; raise ValueError if there are no times to draw from."""
        if self.file is None:
            if self.sha256 is not None:
                raise ValueError(f"sha256 of empirical = {self.sha256!r} is not allowed without a file")
            for name, above_zero in (("samples", False), ("weights", True)):
                found = numbers(f"{name} of empirical", getattr(self, name), above_zero)
                object.__setattr__(self, name, tuple(found.tolist()))
        else:
            object.__setattr__(self, "file", path_of("empirical", self.file))
            if not (_empty(self.samples) and _empty(self.weights)):
                raise ValueError("empirical takes samples (and weights of them) or a file, not both")
            object.__setattr__(self, "sha256", checksum("empirical", self.file, self.sha256))
        times = self.times()
        if len(times) == 0 or times.max() == 0:
            where = f"of {self.file} " if self.file is not None else ""
            raise ValueError(
                f"empirical with {len(times)} samples {where}is not allowed: give at least one, all finite, "
                "none negative, not all zero"
            )
        if self.weights and len(self.weights) != len(self.samples):
            counts = f"{len(self.samples)} samples and {len(self.weights)} weights"
            raise ValueError(f"empirical has {counts}: allowed is one weight per sample, or none")
        if self.weights and not math.isfinite(sum(self.weights)):
            raise ValueError(f"weights of empirical sum to {sum(self.weights)}: allowed is a finite sum")

    def times(self) -> Floats:
        """Return the measured times in seconds (those of the file at the time when the delay was made)."""
        return load_times(self.file, self.sha256) if self.file is not None else np.asarray(self.samples, float)

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """Draw with replacement."""
        return rng.choice(self.times(), size, p=self._shares() if self.weights else None)

    def expectation(self) -> float:
        """Return the (weighted) sample mean."""
        return float(np.average(self.times(), weights=self.weights or None))

    def ppf(self, q: npt.ArrayLike) -> Floats:
        """Return the smallest sample t such that at least a (weighted) fraction ``q`` of samples is <= t."""
        times = self.times()
        order = np.argsort(times)
        upto = np.cumsum(self._shares()[order])
        return np.asarray(times[order][np.minimum(np.searchsorted(upto, q), len(times) - 1)])

    def sf(self, t: npt.ArrayLike) -> Floats:
        """Return the (weighted) fraction of samples above ``t``."""
        times = self.times()
        order = np.argsort(times)
        late = np.append(np.cumsum(self._shares()[order][::-1])[::-1], 0.0)
        return np.asarray(np.minimum(late[np.searchsorted(times[order], np.asarray(t), side="right")], 1.0))

    def settings(self) -> dict[str, Any]:
        """Return the fields as plain tables.

        Raises:
            ValueError: if there are more than 1,000 samples.
        """
        if len(self.samples) > INLINE_SAMPLES:
            raise ValueError(
                f"empirical with {len(self.samples)} samples cannot stand in a spec (at most {INLINE_SAMPLES}): "
                "write them to a file, one a line, and use Empirical(file=...), or use Empirical.thinned(samples)"
            )
        return super().settings()

    def _shares(self) -> Floats:
        weights = np.asarray(self.weights) if self.weights else np.ones(len(self.times()))
        return np.asarray(weights / weights.sum())


@functools.lru_cache(maxsize=4_096)
def load_times(file: str, sha256: str) -> Floats:
    """Return the times of a file with one time per line; the file is read once per checksum.

    Raises:
        ValueError: if a line is not a time, or the checksum differs.
    """
    text = read("empirical", file, sha256, ALLOWED)
    times = [_time(file, number, line) for number, line in enumerate(text.splitlines(), 1) if _stripped(line)]
    found = np.array(times)
    found.setflags(write=False)
    return found


def load_factors(name: str) -> tuple[list[float], list[float]]:
    """Return slow-down factors (time / median), and the number of measurements that each represents.

    Args:
        name: name of the measured delay: ``nn-training-times``.

    Raises:
        ValueError: for an unknown name, with a suggestion.
    """
    folder = importlib.resources.files(__package__) / "data"
    files = {file.name.removesuffix(".txt"): file for file in folder.iterdir() if file.is_file()}
    if name not in list(files):
        raise ValueError(unknown_name("measured delay", name, files))
    factors, weights = np.loadtxt(files[name].read_text(encoding="utf-8").splitlines(), unpack=True)
    return factors.tolist(), weights.tolist()


def _stripped(line: str) -> str:
    return line.partition("#")[0].strip().removesuffix(",").strip()


def _time(file: str, number: int, line: str) -> float:
    text = _stripped(line)
    columns = text.replace(",", " ").replace(";", " ").split()
    if len(columns) != 1:
        raise ValueError(f"{file}, line {number}: {text!r:.80} has {len(columns)} columns; allowed is {ALLOWED}")
    try:
        time = math.nan if "_" in text else float(text)
    except ValueError:
        hint = " (put a # before a header)" if number == 1 else ""
        raise ValueError(
            f"{file}, line {number}: {text!r:.80} is not a number; allowed is {ALLOWED}{hint}"
        ) from None
    if not 0 <= time < math.inf:
        raise ValueError(f"{file}, line {number}: {text!r:.80} is not allowed: give {ALLOWED}")
    return time


def _empty(values: Any) -> bool:
    return isinstance(values, tuple | list) and not values


@functools.lru_cache(maxsize=256)
def _group_edges(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return the edges of groups of ``count`` sorted times: single times at both ends, larger groups inwards.

    A group that begins r times away from its end holds floor(1 + r / s) times, with the largest s that gives at
    most ``most`` groups.
    """
    half = count // 2

    def cuts(single: float) -> list[int]:
        found = [0]
        while found[-1] < half:
            found.append(found[-1] + int(1 + found[-1] / single))
        found[-1] = half
        return found

    low, high = 1.0, float(count)
    while high > 1.001 * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if 2 * len(cuts(middle)) - 1 <= most else (low, middle)
    edges = np.array(cuts(low), np.int64)
    return np.unique(np.concatenate([edges, count - edges]))
