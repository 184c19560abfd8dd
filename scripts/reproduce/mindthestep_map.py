"""Map of the gains of MindTheStep-AsyncPSGD over rate, noise, workers and times, on three problems."""

from __future__ import annotations

from typing import NamedTuple

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
    runs_of,
    share_name,
    soonest,
)

from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Delay, Experiment, Exponential, Gamma, Record

WARMUP = 200
METHODS = {
    "constant": methods.async_(),
    "Poisson": methods.mindthestep(warmup=WARMUP),
    "Poisson, mean kept after the clip": methods.mindthestep(warmup=WARMUP, normalise="after-clip"),
    "CMP fitted online": methods.mindthestep(warmup=WARMUP, model="cmp", online=True),
    "tail": methods.tail(),
}
NARROW, WIDE = Gamma(1.0, 0.2), Exponential(1.0)
TIMES = {NARROW: "gamma", WIDE: "exponential"}
SOFTMAX = {b: Problem("softmax-regression", "fashion-mnist-small", batch_size=b) for b in (32, 4)}
CNN = Problem("cnn-mindthestep", "fashion-mnist-small", batch_size=8)


class Place(NamedTuple):
    """A row of the map: a problem, its noise, workers, their times, and the training losses to reach."""

    problem: Problem
    noise: str
    workers: int
    times: Delay
    targets: tuple[float, float]

    @property
    def name(self) -> str:
        """The name of the row in the picture and the tables."""
        return f"{TIMES[self.times]}, m = {self.workers}, {self.noise}"


class Plan(NamedTuple):
    """The map of one problem: its rows, the shares of the limit, the methods, and the settings of the runs."""

    places: list[Place]
    shares: tuple[float, ...]
    methods: tuple[str, ...]
    updates: int
    rows: int
    train_examples: int | None
    lanes: int


def squares(noise: float, workers: int, times: Delay) -> Place:
    """Return a row of least squares; at its targets, 3 % and 1 % of the initial excess loss remain."""
    problem, least, start = least_squares(noise, 100.0)
    return Place(
        problem,
        f"noise {noise:g}",
        workers,
        times,
        (least + 0.03 * (start - least), least + 0.01 * (start - least)),
    )


def softmax(batch: int, workers: int, times: Delay) -> Place:
    """Return a row of softmax regression."""
    return Place(SOFTMAX[batch], f"batch {batch}", workers, times, (0.7, 0.6))


PLANS = {
    "least squares": Plan(
        [squares(s, m, times) for times in TIMES for s in (0.1, 1.0) for m in (8, 16, 32)],
        (1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0), tuple(METHODS), 4_000, 200, None, 30,
    ),
    "softmax regression": Plan(
        [softmax(32, m, NARROW) for m in (8, 16, 32)] + [softmax(4, 16, NARROW), softmax(32, 16, WIDE)],
        (0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6), tuple(METHODS), 1_600, 200, 2_000, 35,
    ),
    "CNN": Plan(
        [Place(CNN, "batch 8", 16, times, (1.0, 0.9)) for times in TIMES],
        (4.0, 8.0, 16.0), ("constant", "Poisson"), 800, 50, 400, 1,
    ),
}  # fmt: skip


class Found(NamedTuple):
    """The results of one row: histories by method and share of the limit."""

    place: Place
    histories: dict[str, dict[float, Histories]]

    def at_same_rate(self, label: str, share: float, target: float) -> Ratio:
        """Return the ratio of a method to the constant step at the same rate."""
        return ratio(self.histories[label][share], self.histories["constant"][share], target, "update")

    def against_best(self, label: str, share: float, target: float) -> Ratio:
        """Return the ratio of a method to the constant step at the rate that is best for the target."""
        best = soonest(self.histories["constant"], target, "update")
        if best is None:
            return Ratio(float("nan"), float("nan"), float("nan"))
        return ratio(self.histories[label][share], self.histories["constant"][best], target, "update")

    def tuned(self, label: str, target: float) -> tuple[Ratio, str]:
        """Return the ratio of both methods at their own best rates, and these rates as shares of the limit."""
        ours, theirs = (soonest(self.histories[name], target, "update") for name in (label, "constant"))
        if ours is None:
            return self.against_best(label, next(iter(self.histories[label])), target), "-"
        rates = f"{share_name(ours)} against {'-' if theirs is None else share_name(theirs)}"
        return self.against_best(label, ours, target), rates


def explore(plan: Plan) -> list[Found]:
    """Run every method at every rate in every row."""
    found = []
    for place in plan.places:
        base = Experiment(
            place.problem, Cluster(place.workers, compute=place.times), METHODS["constant"], updates=plan.updates,
            record=Record(updates=plan.updates // plan.rows, gap=False, train_examples=plan.train_examples),
        )  # fmt: skip
        rates = [share * limit(place.problem, place.workers) for share in plan.shares]
        histories = {
            label: dict(zip(plan.shares, runs_of(base.but(method=METHODS[label]), rates, plan.lanes), strict=True))
            for label in plan.methods
        }
        found.append(Found(place, histories))
    return found


def claims(name: str, plan: Plan, found: list[Found]) -> list[Claim]:
    """Return the claims about one problem."""
    above = {True: [s for s in plan.shares if s > 1], False: [s for s in plan.shares if s <= 1]}
    made = []
    for fast, shares in above.items():
        if not shares:
            continue
        cells = [f.at_same_rate("Poisson", s, t) for f in found for s in shares for t in f.place.targets]
        where = "above" if fast else "at or below"
        made.append(
            mostly(
                f"{name}, rates {where} the limit",
                "At the same rate the Poisson step reaches the target in fewer updates than the constant one.",
                cells,
            )
        )
    for label in plan.methods[1:]:
        cells = [f.tuned(label, t)[0] for f in found for t in f.place.targets]
        made.append(
            mostly(
                f"{name}, {label}, tuned",
                "At its best rate the adaptive step reaches the target in fewer updates than the constant one at "
                "its own best rate.",
                cells,
            )
        )
    return made


def tuned_table(name: str, plan: Plan, found: list[Found]) -> str:
    """Return a table of the ratios of tuned methods and their best rates."""
    rows = []
    for f in found:
        for target in f.place.targets:
            pairs = [f.tuned(label, target) for label in plan.methods[1:]]
            rows.append([f.place.name, f"{target:.3g}", *(f"{r}; {rates}" for r, rates in pairs)])
    return table(
        f"{name}: updates to the target of the constant step / of the adaptive one, each at its best rate: median "
        "over seeds (95 % interval); best rates as shares of the limit",
        ["", "target", *plan.methods[1:]],
        rows,
    )


def picture(file: str, found: dict[str, list[Found]]) -> str:
    """Draw the Poisson step against the constant step at the same rate, and at the constant step's best rate."""
    panels = []
    for title, compare in (("same rate", Found.at_same_rate), ("best constant step", Found.against_best)):
        panels.append(
            [
                Panel(
                    f"{name}: {title}",
                    [f.place.name for f in rows],
                    [share_name(s) for s in PLANS[name].shares],
                    [[compare(f, "Poisson", s, f.place.targets[1]) for s in PLANS[name].shares] for f in rows],
                )
                for name, rows in found.items()
            ]
        )
    draw(file, panels, "rate / stability limit", "times sooner than the constant step")
    return f"![MindTheStep against the constant step]({file})"


def when(found: dict[str, list[Found]]) -> str:
    """Return advice on when to use MindTheStep, in one paragraph, with the supporting counts."""
    rows = [(name, f) for name, places in found.items() for f in places]

    def shown(ratios: list[Ratio]) -> str:
        told = [r.verdict for r in ratios if r.verdict != "neither"]
        return f"sooner in {told.count('sooner')}, later in {told.count('later')} of {len(told)} cells"

    def same_rate(times: Delay, above: bool) -> str:
        return shown(
            [
                f.at_same_rate("Poisson", s, t)
                for name, f in rows
                for s in PLANS[name].shares
                for t in f.place.targets
                if f.place.times == times and (s > 1) == above
            ]
        )

    def tuned(name: str, label: str) -> list[Ratio]:
        return [f.tuned(label, t)[0] for f in found[name] for t in f.place.targets]

    adaptive = [(name, label) for name, plan in PLANS.items() for label in plan.methods[1:] if label != "tail"]
    gains = {
        f"{name} ({f.place.name})": None
        for name, label in adaptive
        for f in found[name]
        for t in f.place.targets
        if f.tuned(label, t)[0].verdict == "sooner"
    }
    by_problem = ", ".join(
        f"{name}: {shown([r for n, label in adaptive if n == name for r in tuned(n, label)])}" for name in PLANS
    )
    return (
        "**When to use it.** Use MindTheStep if the rate may be too large for the staleness and times vary "
        "little. The counts are over the cells in which a run reaches the target. At the same rate, the Poisson "
        f"step with gamma times is {same_rate(NARROW, True)} above the limit, but {same_rate(NARROW, False)} at "
        f"or below it. With exponential times it is {same_rate(WIDE, True)} above the limit and "
        f"{same_rate(WIDE, False)} at or below it. (The authors' rate, 0.01, is "
        f"{0.01 / limit(SOFTMAX[32], 16):.1f} times the limit for softmax regression with m = 16.) An adaptive "
        "step with a tuned rate seldom beats a constant step with a tuned rate, over all forms of MindTheStep: "
        f"{by_problem}. The gains are in {'; '.join(gains)}. Therefore tune the constant step first. If that is "
        "not possible and staleness is near Poisson, MindTheStep makes rates usable that are too large for the "
        "constant step. Do not use it with noisy gradients or exponential times."
    )


def section() -> Section:
    """Return the section of the report."""
    found = {name: explore(plan) for name, plan in PLANS.items()}
    return Section(
        "MindTheStep: where it gains",
        "The tables show the updates to a training loss, constant step / adaptive step: a ratio above 1 means "
        f"that the adaptive step is sooner. {len(SEEDS)} seeds, paired; bootstrap intervals of 95 %. Rates are "
        "shares of the stability limit for a constant delay, 2 / L sin(pi / (2 (2 m - 1))), where m is the "
        "number of workers and L the curvature at the start. Least squares: 20 dimensions, condition number "
        "100, batch 4; at the targets 3 % and 1 % of the initial excess loss are left. Softmax regression: "
        "fashion-mnist-small, batch 32 or 4. CNN: the authors' network on fashion-mnist-small, batch 8, two "
        f"methods only. Gamma times have CV 0.2. Warm-up {WARMUP} messages, damping 1, clip 5. A claim holds if "
        "the interval is above 1 in more than half of the cells in which a run reaches the target. In the "
        "column *measured*, *open* means that the interval includes 1, and *neither* that no run reaches the "
        "target.",
        [c for name, plan in PLANS.items() for c in claims(name, plan, found[name])],
        [
            picture("mindthestep-map.png", found)
            + "\n\n*The Poisson step and the lower target. Bold: the interval excludes 1. Grey: neither reaches "
            "the target. 0: only the constant step reaches it within the run. Above: both steps at the same rate. "
            "Below: against the constant step at its best rate.*",
            *(tuned_table(name, plan, found[name]) for name, plan in PLANS.items()),
            when(found),
        ],
    )
