"""Map of AdaSync's gains over rate, noise, workers, times, interval and floor, on three problems."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from common import Claim, Section, table
from maps import (
    SEEDS,
    Histories,
    Panel,
    Ratio,
    draw,
    least_squares,
    limit,
    mostly,
    ratio,
    share_name,
    softmax_regression,
    soonest,
)

from stalegrad import sweep
from stalegrad.analysis.statistics.paired import bootstrap
from stalegrad.models import Problem
from stalegrad.policies import KAsync, KSync, methods
from stalegrad.simulator import Cluster, Delay, Experiment, Exponential, Gamma, Record

OFTEN, SELDOM = "4 s", "tenth of a run"
INTERVALS: dict[str, float | None] = {OFTEN: 4.0, SELDOM: None}
FURTHER: dict[str, float | None] = {"1 s": 1.0, OFTEN: 4.0, "16 s": 16.0, "64 s": 64.0}
IMAGES, L2 = 1_000, 0.05
NARROW, WIDE = Gamma(1.0, 0.2), Exponential(1.0)
TIMES = {NARROW: "gamma", WIDE: "exponential"}
VARIANTS: dict[str, Callable[[int], Any]] = {"k-async": KAsync, "k-sync": KSync}
CNN = Problem("cnn-mindthestep", "fashion-mnist-small", batch_size=8)
LOOKS = ("on the way", "near the end", "excess at the end")


class Place(NamedTuple):
    """A row of the map: a problem, its least loss and noise, the variant, workers and their times."""

    problem: Problem
    least: float
    noise: str
    variant: str
    workers: int
    times: Delay

    @property
    def name(self) -> str:
        """The name of the row in the picture and the tables."""
        return f"{self.variant}, {TIMES[self.times]}, P = {self.workers}, {self.noise}"


class Plan(NamedTuple):
    """The rows of one problem, the shares of the limit that are tried, and the targets.

    Attributes:
        places: rows of the map.
        shares: rates as shares of the limit.
        budget: rate times simulated seconds of a run.
        targets: excess losses to reach, as multiples of the least final excess loss of any fixed K.
        floors: whether AdaSync is given the least loss; otherwise it uses 0.
        train_examples: number of examples of the training loss; None: all.
        rows: number of rows of a history.
    """

    places: list[Place]
    shares: tuple[float, ...]
    budget: float
    targets: tuple[float, float]
    floors: tuple[bool, ...]
    train_examples: int | None
    rows: int


def squares(variant: str, times: Delay, workers: int, noise: float) -> Place:
    """Return a row of least squares."""
    problem, least, _ = least_squares(noise, 10.0)
    return Place(problem, least, f"noise {noise:g}", variant, workers, times)


def softmax(variant: str, times: Delay) -> Place:
    """Return a row of softmax regression."""
    problem, least = softmax_regression(IMAGES, L2)
    return Place(problem, least, "batch 4", variant, 8, times)


def plans() -> dict[str, Plan]:
    """Return the plan of each problem."""
    corners = (("k-async", WIDE, 8), ("k-sync", WIDE, 8), ("k-async", NARROW, 8), ("k-async", WIDE, 16))
    return {
        "least squares": Plan(
            [squares(*c, 0.3) for c in corners] + [squares(*c, 1.0) for c in corners[:2]],
            (1 / 4, 1 / 2, 1.0), 60.0, (10.0, 1.5), (True, False), None, 200,
        ),
        "softmax regression": Plan(
            [softmax("k-async", WIDE), softmax("k-sync", WIDE), softmax("k-async", NARROW)],
            (1 / 2, 1.0, 2.0), 1.0, (10.0, 1.5), (True, False), None, 80,
        ),
        "CNN": Plan(
            [Place(CNN, 0.0, "batch 8", "k-async", 8, WIDE)],
            (8.0,), 1.5, (1.5, 1.1), (False,), 400, 40,
        ),
    }  # fmt: skip


class Cell(NamedTuple):
    """The results of one row at one rate: fixed K, and AdaSync by interval and by whether the floor is known.

    Attributes:
        place: row of the map.
        targets: training losses to reach.
        fixed: histories by K.
        adaptive: histories by (interval, floor known).
        last: mean K at the end, by (interval, floor known).
    """

    place: Place
    targets: list[float]
    fixed: dict[int, Histories]
    adaptive: dict[tuple[str, bool], Histories]
    last: dict[tuple[str, bool], float]

    def looks(self, key: tuple[str, bool]) -> list[Ratio]:
        """Return the ratios to the fixed K that is best for each target, and for the excess at the end."""
        ours, found = self.adaptive[key], []
        for target in self.targets:
            best = soonest(self.fixed, target, "wallclock")
            if best is None:
                found.append(Ratio(math.nan, math.nan, math.nan))
            else:
                found.append(ratio(ours, self.fixed[best], target, "wallclock"))
        lowest = ends(self.fixed[self.best_at_end], self.place.least)
        ratios = np.log(lowest / ends(ours, self.place.least))
        interval = bootstrap(ratios, np.median, 0.95, 2_000, 0)
        return [*found, Ratio(*(float(math.exp(value)) for value in (np.median(ratios), *interval)))]

    @property
    def best_at_end(self) -> int:
        """The fixed K with the least excess loss at the end."""
        return min(self.fixed, key=lambda k: np.mean(ends(self.fixed[k], self.place.least)))

    def best(self) -> str:
        """Return the K that is best for each target, and the K with the least excess loss at the end."""
        named = [soonest(self.fixed, target, "wallclock") for target in self.targets]
        return ", ".join("-" if k is None else str(k) for k in (*named, self.best_at_end))


def ends(runs: Histories, least: float) -> Any:
    """Return the mean excess loss over the last fifth of every run."""
    return np.array(
        [history["train_loss"].iloc[-(len(history) // 5) :].mean() - least for history in runs.values()]
    )


def over_seeds(base: Experiment) -> tuple[Histories, float]:
    """Run an experiment with every seed; return its histories, and the mean K at the end."""
    done = sweep(base, progress=False, seed=SEEDS)
    if done.failed:
        raise RuntimeError(next(iter(done.failed.values())))
    histories = {result.experiment.seed: result.history for result in done.results}
    decisions = [result.trace.spec.get("decisions", []) for result in done.results]
    return histories, float(np.mean([made[-1][2] if made else base.method.synchrony.k for made in decisions]))


def explore(plan: Plan, place: Place, share: float, intervals: Mapping[str, float | None] = INTERVALS) -> Cell:
    """Run every fixed K and AdaSync at one rate in one row."""
    rate = share * limit(place.problem, place.workers)
    seconds = plan.budget / rate
    make, k_method = VARIANTS[place.variant], methods.REGISTRY[place.variant]
    record = Record(wallclock=seconds / plan.rows, gap=False, train_examples=plan.train_examples)
    cluster = Cluster(place.workers, compute=place.times)
    base = Experiment(place.problem, cluster, k_method(k=1), wallclock=seconds, record=record)
    fixed = {
        k: over_seeds(base.but(method=k_method(k=k, learning_rate=rate)))[0]
        for k in (1, 2, 4, 8, 16)
        if k <= place.workers
    }
    adaptive, last = {}, {}
    for name, interval in intervals.items():
        for known in plan.floors:
            method = methods.adasync(
                synchrony=make(1),
                learning_rate=rate,
                interval=seconds / 10 if interval is None else interval,
                floor=place.least if known else 0.0,
            )
            adaptive[name, known], last[name, known] = over_seeds(base.but(method=method))
    lowest = min(np.mean(ends(runs, place.least)) for runs in fixed.values())
    return Cell(place, [place.least + c * lowest for c in plan.targets], fixed, adaptive, last)


def floor_name(known: bool) -> str:
    """Return the name of AdaSync's estimate of the least loss in the tables."""
    return "floor known" if known else "floor 0"


def claims(name: str, plan: Plan, cells: list[list[Cell]]) -> list[Claim]:
    """Return the claims about one problem."""
    texts = [
        *(
            f"AdaSync reaches {c:g} times the final excess loss of the best fixed K sooner than the fixed K that "
            "is best for this target."
            for c in plan.targets
        ),
        "At the end the excess loss of AdaSync is lower than that of the best fixed K (ratio of the two).",
    ]
    return [
        mostly(
            f"{name}, every {interval}, {floor_name(known)}, {LOOKS[i]}",
            text,
            [cell.looks((interval, known))[i] for line in cells for cell in line],
        )
        for interval in INTERVALS
        for known in plan.floors
        for i, text in enumerate(texts)
    ]


def ratios_table(name: str, plan: Plan, cells: list[list[Cell]]) -> str:
    """Return a table of the ratios of every cell, with the best K and the last K of AdaSync."""
    rows = [
        [
            cell.place.name, share_name(share), cell.best(), f"{interval}, {floor_name(known)}",
            *map(str, cell.looks((interval, known))), f"{last:.1f}",
        ]
        for line in cells
        for share, cell in zip(plan.shares, line, strict=True)
        for (interval, known), last in cell.last.items()
    ]  # fmt: skip
    return table(
        f"{name}: time of the best fixed K / time of AdaSync to the two targets, and excess loss at the end of "
        "the best fixed K / of AdaSync: median over seeds (95 % interval)",
        ["", "rate / limit", "best K", "AdaSync", *LOOKS, "last K"],
        rows,
    )


def factors(name: str, plan: Plan) -> str:
    """Return a table of AdaSync's ratios at every interval, for the first row at the middle rate."""
    share = plan.shares[1]
    cell = explore(plan, plan.places[0], share, FURTHER)
    rows = [
        [interval, floor_name(known), *map(str, cell.looks((interval, known))), f"{last:.1f}"]
        for (interval, known), last in cell.last.items()
    ]
    return table(
        f"{name}, {cell.place.name}, rate {share_name(share)} of the limit: AdaSync's interval and floor; best K "
        f"{cell.best()}",
        ["interval", "floor", *LOOKS, "last K"],
        rows,
    )


def when(found: dict[str, list[list[Cell]]]) -> str:
    """Return advice on when to use AdaSync, in one paragraph, with the supporting counts."""
    cells = [cell for rows in found.values() for line in rows for cell in line if (SELDOM, True) in cell.adaptive]

    def shown(interval: str, known: bool, look: int, long: bool = True) -> str:
        ratios = [cell.looks((interval, known))[look] for cell in cells if (cell.best_at_end >= 4) == long]
        better, worse = (sum(r.verdict == verdict for r in ratios) for verdict in ("sooner", "later"))
        return f"better in {better}, worse in {worse} of {len(ratios)} cells"

    return (
        "**When to use it.** Use AdaSync for runs that last until the noise at K = 1 limits the loss: runs in "
        "which the best fixed K at the end is 4 or more. If AdaSync is given the least loss and decides every "
        f"{SELDOM}, its excess loss at the end is then lower than with that K ({shown(SELDOM, True, 2)}). It "
        "reaches the target near the end about as soon as the best K for that target "
        f"({shown(SELDOM, True, 1)}), and targets on the way never sooner ({shown(SELDOM, True, 0)}). In shorter "
        f"runs it gains nothing at the end ({shown(SELDOM, True, 2, False)}). If it decides every {OFTEN}, K "
        "grows quickly while the loss still falls fast, and AdaSync is late on the way "
        f"({shown(OFTEN, True, 0)}) and near the end ({shown(OFTEN, True, 1)}). With 0 in place of the least "
        "loss, K stops growing as the loss approaches its floor, and the noise of that K remains "
        f"({shown(SELDOM, False, 2)}). Therefore estimate the least loss, use intervals that are long compared "
        "with the time in which the loss falls, and use a fixed small K for targets well above the noise."
    )


def picture(file: str, made: dict[str, Plan], found: dict[str, list[list[Cell]]]) -> str:
    """Draw AdaSync against the best fixed K: one row of panels for each problem and interval."""
    panels = [
        [
            Panel(
                f"{name}, every {interval}:\n{look}",
                [line[0].place.name for line in found[name]],
                [share_name(s) for s in plan.shares],
                [[cell.looks((interval, plan.floors[0]))[i] for cell in line] for line in found[name]],
            )
            for i, look in enumerate(LOOKS)
        ]
        for name, plan in made.items()
        for interval in INTERVALS
    ]
    draw(file, panels, "rate / stability limit", "times sooner (or lower) than the best fixed K")
    return f"![AdaSync against the best fixed K]({file})"


def section() -> Section:
    """Return the section of the report."""
    made = plans()
    found = {name: [[explore(p, place, s) for s in p.shares] for place in p.places] for name, p in made.items()}
    return Section(
        "AdaSync: where it gains",
        "The tables compare the simulated seconds to a training loss with those of the fixed K that is best for "
        f"this loss: a ratio above 1 means that AdaSync is sooner. {len(SEEDS)} seeds, paired; bootstrap "
        "intervals of 95 %. K is 1, 2, 4, 8 (and 16). AdaSync starts from K = 1, decides every 4 s or ten times "
        "in a run, and is given the least loss or takes 0 for it. A gradient takes 1 s on average. Rates are "
        "shares of the stability limit for a constant delay of P - 1. The excess loss is the training loss "
        "minus the least loss. Targets are 10 and 1.5 times the excess loss of the best fixed K at the end "
        "(mean of the last fifth). Least squares: 20 dimensions, condition number 10, batch 4. Softmax "
        f"regression: L2 {L2:g}, {IMAGES:,} images of fashion-mnist-small, batch 4. CNN: the network of "
        "MindTheStep's authors on fashion-mnist-small, batch 8; its least loss is not known and taken to be 0, "
        "and targets are 1.5 and 1.1 times. Gamma times have CV 0.2. A claim holds if the interval is above 1 "
        "in more than half of the cells in which a run reaches the target. In the column *measured*, *open* "
        "means that the interval includes 1, and *neither* that no run reaches the target; for the excess loss, "
        "*sooner* means lower and *later* higher.",
        [claim for name, plan in made.items() for claim in claims(name, plan, found[name])],
        [
            picture("adasync-map.png", made, found)
            + "\n\n*Bold: the interval excludes 1. Grey: neither reaches the target. 0: AdaSync does not reach it "
            "within the run. AdaSync is given the least loss, except for the CNN.*",
            when(found),
            *(factors(name, plan) for name, plan in made.items() if name != "CNN"),
            *(ratios_table(name, plan, found[name]) for name, plan in made.items()),
        ],
    )
