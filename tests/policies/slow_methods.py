"""Every asynchronous method once more, slowly, in float64 NumPy, from the formulas alone.

One event = one message: the gradient at what its worker holds, the method's arithmetic, what is sent back. Written
from the papers' recurrences with the parameters as one vector; shares no code with the package.
"""

import functools
import math

import numpy as np


class Slow:
    """State shared by all methods: theta, what each worker holds, and when it was sent."""

    def __init__(self, theta, workers, rate=None, **options):
        self.theta = theta.copy()
        self.n = workers
        self.held = np.tile(theta, (workers, 1))
        self.sent_at = np.zeros(workers, int)
        self.t = 0
        self.gamma = options.pop("momentum", 0.9)
        self.wd = options.pop("weight_decay", 0.0) or 0.0
        self.o = options
        self.v = np.zeros_like(theta)
        self.vi = np.zeros((workers, len(theta)))
        self.seen = []
        self.setup()

    def setup(self):
        pass

    def event(self, i, gradient_at, eta):
        """Worker i's message is applied with learning rate eta."""
        w = self.held[i].copy()
        self.tau = self.t - self.sent_at[i]
        self.seen.append(self.tau)
        self.i, self.w, self.eta = i, w, eta
        self.step(gradient_at(w))
        self.t += 1
        self.sent_at[i] = self.t
        self.held[i] = self.send()

    def send(self):
        return self.theta

    def decayed(self, g):
        return g + self.wd * self.theta

    def nag(self, d):
        self.v = self.gamma * self.v + d
        self.theta = self.theta - self.eta * (self.gamma * self.v + d)

    def step(self, g):
        self.theta = self.theta - self.eta * self.decayed(g)


class Plain(Slow):
    pass


class GapLimited(Slow):
    def step(self, g):
        square = np.sum((self.theta - self.w) ** 2)
        eta = self.eta if square == 0 else min(self.o["threshold"] / square, self.eta)
        self.theta = self.theta - eta * self.decayed(g)


class NagASGD(Slow):
    def step(self, g):
        d = self.decayed(g)
        if self.o.get("nesterov", True):
            self.nag(d)
        else:
            self.v = self.gamma * self.v + d
            self.theta = self.theta - self.eta * self.v


class Multi(Slow):
    def step(self, g):
        self.vi[self.i] = self.gamma * self.vi[self.i] + self.decayed(g)
        self.theta = self.theta - self.eta * self.vi[self.i]

    def send(self):
        if self.o.get("nesterov", True):
            return self.theta - self.eta * self.gamma * self.vi[self.i]
        return self.theta


class DC(Slow):
    def setup(self):
        self.ms = np.zeros_like(self.vi)

    def compensated(self, g):
        strength = self.o.get("strength", 2.0)
        if self.o.get("adaptive"):
            m = self.o.get("mean_square_decay", 0.95)
            self.ms[self.i] = m * self.ms[self.i] + (1 - m) * g * g
            strength = strength / np.sqrt(self.ms[self.i] + 1e-7)
        return g + strength * g * g * (self.theta - self.w)

    def step(self, g):
        d = self.decayed(self.compensated(g))
        if self.gamma is None:
            self.theta = self.theta - self.eta * d
        elif self.o.get("buffer") == "per-worker":
            self.vi[self.i] = self.gamma * self.vi[self.i] + d
            self.theta = self.theta - self.eta * (self.gamma * self.vi[self.i] + d)
        else:
            self.nag(d)


class LWP(Slow):
    def step(self, g):
        self.v = self.gamma * self.v + self.decayed(g)
        self.theta = self.theta - self.eta * self.v

    def send(self):
        return self.theta - self.o.get("horizon", self.n - 1) * self.eta * self.v


class SpecTrain(LWP):
    def step(self, g):
        self.v = self.gamma * self.v + (1 - self.gamma) * self.decayed(g)
        self.theta = self.theta - self.eta * self.v


class DanaZero(Slow):
    def message(self, g):
        return self.decayed(g)

    def step(self, g):
        self.vi[self.i] = self.gamma * self.vi[self.i] + self.message(g)
        self.theta = self.theta - self.eta * self.vi[self.i]

    def send(self):
        return self.theta - self.eta * self.gamma * self.vi.sum(0)


class DanaSlim(Slow):
    def step(self, g):
        g = g + self.wd * self.w
        self.vi[self.i] = self.gamma * self.vi[self.i] + g
        self.theta = self.theta - self.eta * (self.gamma * self.vi[self.i] + g)


class DanaDC(DanaZero):
    def message(self, g):
        return self.decayed(g + self.o.get("strength", 2.0) * g * g * (self.theta - self.w))


class DanaSA(DanaZero):
    def message(self, g):
        return self.decayed(g) / (self.tau + 1 if self.o.get("offset") else max(1, self.tau))


class Penalty:
    """The gap penalty G; ``free``: messages of staleness 0 are not penalised."""

    def setup(self):
        self.r, self.count, self.top = np.zeros_like(self.theta), 0, 0.0

    def penalty(self, b, free):
        keep = self.o.get("gap_decay", 0.999)
        self.r = keep * self.r + (1 - keep) * b * b
        self.count += 1
        self.top = max(self.top, self.eta)
        step = np.sqrt(self.r / (1 - keep**self.count))
        eta = self.top if self.o.get("running_peak") else self.o["peak"]
        gap, kind = self.theta - self.w, self.o.get("granularity", "elementwise")
        if kind == "elementwise":
            result = np.abs(gap) / (eta * (step + 1e-8)) + 1
        elif kind == "global":
            result = np.linalg.norm(gap) / (eta * (np.linalg.norm(step) + 1e-8)) + 1
        else:
            result = np.empty_like(gap)
            for part in self.o["layers"]:
                length = np.linalg.norm(gap[part]) / (eta * (np.linalg.norm(step[part]) + 1e-8))
                result[part] = length + 1
        return 1.0 if free and self.tau == 0 else result


class GapAware(Penalty, Slow):
    def adam(self, g):
        b1, b2, fixed = self.gamma, self.o.get("gap_decay", 0.999), self.wd * self.theta
        if not hasattr(self, "m"):
            self.m, self.v2, self.rs = (np.zeros_like(self.theta) for _ in range(3))
        penalty = 1.0 if self.tau == 0 else np.abs(self.theta - self.w) / (np.sqrt(self.rs) + 1e-8) + 1
        d = (g + fixed) / penalty if self.o.get("penalise_weight_decay", True) else g / penalty + fixed
        self.count += 1
        self.m = b1 * self.m + (1 - b1) * d
        self.v2 = b2 * self.v2 + (1 - b2) * d * d
        root = np.sqrt(self.v2) / np.sqrt(1 - b2**self.count)
        step = self.eta / (1 - b1**self.count) * self.m / (root + 1e-8)
        self.rs = b2 * self.rs + (1 - b2) * step * step
        self.theta = self.theta - step

    def step(self, g):
        if self.o.get("optimizer") == "adam":
            self.adam(g)
            return
        penalty = self.penalty(g if self.gamma is None else self.v, True)
        if self.o.get("penalise_weight_decay", True):
            d = self.decayed(g) / penalty
        else:
            d = g / penalty + self.wd * self.theta
        if self.gamma is None:
            self.theta = self.theta - self.eta * d
        else:
            self.nag(d)


class DanaGA(Penalty, DanaZero):
    def message(self, g):
        return self.decayed(g) / self.penalty(self.vi[self.i].copy(), False)


class StalenessAware(Slow):
    def step(self, g):
        d = self.decayed(g) / (self.tau + 1 if self.o.get("offset") else max(1, self.tau))
        if self.gamma is None:
            self.theta = self.theta - self.eta * d
        else:
            self.nag(d)


class Weighted(Slow):
    """Learning rate eta * factor(tau), the factor from this event's staleness and those seen before."""

    def step(self, g):
        self.theta = self.theta - self.eta * self.factor() * self.decayed(g)


class Inverse(Weighted):
    def factor(self):
        return 1 / (self.tau + 1)


class Fleet(Weighted):
    def factor(self):
        horizon = self.n + 1
        half = horizon // 2 if self.o.get("integer_division") else horizon / 2
        return math.exp(-(2 / horizon) * math.log(1 + half) * self.tau)


class DelayAdaptive(Weighted):
    def factor(self):
        return self.n / max(self.n, self.tau)


class Tail(Weighted):
    def factor(self):
        a, n = self.o.get("amplitude", 1.0), self.n
        if self.t < 15 * n:
            return 1.0
        window = [tau for step, tau in enumerate(self.seen) if 10 * n < step < 15 * n]
        below = sum(tau < self.tau for tau in window)
        equal = sum(tau == self.tau for tau in window)
        if self.o.get("cdf") == "strict":
            return 1 + a * (1 - 2 * below / (5 * n))
        return 1 + a * (1 - 2 * (below + equal / 2) / len(window))


class MindTheStep(Weighted):
    def raw(self, tau):
        m, model = self.o.get("mean", self.n), self.o.get("model", "poisson")
        damping = self.o.get("damping", 1.0)
        if model == "geometric" and self.o.get("target_momentum"):
            return ((1 - 1 / m) / self.o["target_momentum"]) ** -tau
        if model == "geometric":
            p = [1 / m * (1 - 1 / m) ** k for k in range(4000)]
        elif model == "uniform":
            top = round(2 * (m - 1))
            p = [1 / (top + 1)] * (top + 1) + [0.0] * 400
        else:
            nu = self.o.get("nu", 1.0) if model == "cmp" else 1.0
            p = [math.exp(nu * (k * math.log(m) - math.lgamma(k + 1))) for k in range(150)]
            p = [x / sum(p) for x in p]
        return sum(p[tau:]) / p[tau] if damping == 1 and p[tau] else self.general(p, tau, damping)

    def general(self, p, tau, damping):
        return (1 - damping * sum(p[:tau])) / p[tau] if p[tau] else 0.0

    def factor(self):
        warmup = self.o.get("warmup", 300)
        if len(self.seen) - 1 < warmup:
            return 1.0
        refresh = self.o.get("refresh")
        past = len(self.seen) - 1
        upto = warmup if refresh is None else warmup + (past - warmup) // refresh * refresh
        history = [
            tau for update, tau in enumerate(self.seen[:upto]) if update > tau
        ]  # not at the initial version
        drop = self.o.get("drop_above", 150)

        @functools.cache
        def value(tau):
            return 0.0 if drop is not None and tau > drop else self.raw(tau)

        mean = sum(value(tau) for tau in history) / len(history)
        result = value(self.tau) / mean
        clip = self.o.get("clip", 5.0)
        return result if clip is None else min(result, clip)


class SMEGA2(Slow):
    def setup(self):
        self.c, self.a = 0, np.zeros_like(self.theta)

    def step(self, g):
        d = self.decayed(g)
        self.c = (self.c + 1) % self.n
        self.a = self.a + d
        self.theta = self.theta - self.eta * (self.gamma * self.v + d)
        if self.c == 0:
            self.v, self.a = self.gamma * self.v + self.a / self.n, np.zeros_like(self.a)

    def send(self):
        c = 0 if self.o.get("naive") else self.c
        estimate = self.v * (self.n + c * (self.gamma - 1)) + self.a * c / self.n
        return self.theta - self.eta * self.gamma * estimate


class FASGD(Slow):
    def setup(self):
        self.square = self.mean = self.deviation = np.zeros_like(self.theta)

    def step(self, g):
        c1, c2 = self.o.get("square_decay", 0.9), self.o.get("deviation_decay", 0.9)
        self.square = c1 * self.square + (1 - c1) * g * g
        self.mean = c1 * self.mean + (1 - c1) * g
        spread = np.sqrt(np.maximum(self.square - self.mean**2, 0) + self.o.get("eps", 1e-8))
        if self.o.get("spread") == "magnitude":
            spread = np.abs(g)
        self.deviation = c2 * self.deviation + (1 - c2) * spread
        floor = self.o.get("floor", 1e-8)
        self.theta = self.theta - self.eta * g / ((self.deviation + floor) * (self.tau + 1))


SLOW = {
    "async": Plain,
    "sgd": NagASGD,
    "gap-limited": GapLimited,
    "mindthestep": MindTheStep,
    "tail": Tail,
    "inverse": Inverse,
    "fleet": Fleet,
    "delay-adaptive": DelayAdaptive,
    "nag-asgd": NagASGD,
    "multi-asgd": Multi,
    "dc-asgd": DC,
    "lwp": LWP,
    "dana-zero": DanaZero,
    "dana-slim": DanaSlim,
    "dana-dc": DanaDC,
    "gap-aware": GapAware,
    "staleness-aware": StalenessAware,
    "dana-ga": DanaGA,
    "dana-sa": DanaSA,
    "smega2": SMEGA2,
    "fasgd": FASGD,
    "spectrain": SpecTrain,
}
