"""The methods whose servers choose, once more: an event loop and the papers' pseudo-code, in float64.

Shares no code with the package. A worker's local gradients take ``times[worker]`` seconds, one after the other;
the h-th of its k-th job is ``gradient(worker, k, h, x)`` at a point x. Ties go to the lower worker index.
"""

import heapq
import itertools
import math
from collections import defaultdict

import numpy as np


class Server:
    """A server and its workers.

    Args:
        theta: the initial point.
        times: per worker, an iterable of seconds of its jobs.
        gradient: as above.
        rate: ``update -> learning rate``.
        steps: local steps of a job.
        options: of the method.
    """

    displaced = False

    def __init__(self, theta, times, gradient, rate, steps=1, **options):
        self.theta, self.n, self.o = theta.copy(), len(times), options
        self.gradient, self.rate, self.steps = gradient, rate, steps
        self.times, self.jobs = [iter(t) for t in times], [itertools.count() for _ in times]
        self.version, self.clock = 0, 0.0
        self.heap, self.epoch = [], [0] * self.n
        self.held = [(0, theta.copy())] * self.n
        self.job = [0] * self.n
        self.buffer, self.updates, self.points = [], [], []
        for i in range(self.n):
            self.begin(i)
        self.setup()

    def setup(self):
        pass

    # What workers do.

    def begin(self, i):
        """Worker i begins a job at the point that it holds."""
        self.job[i] = next(self.jobs[i])
        self.epoch[i] += 1
        end = self.clock
        for _ in range(self.steps):
            end += next(self.times[i])
        heapq.heappush(self.heap, (end, i, self.epoch[i]))

    def send(self, i):
        """Worker i is sent the current point, and begins a job there; what it was doing is dropped."""
        self.held[i] = (self.version, self.theta.copy())
        self.begin(i)

    def work(self, i):
        """Return the sum of the gradients of worker i's local steps, and where they end."""
        y, total = self.held[i][1].copy(), np.zeros_like(self.theta)
        for h in range(self.steps):
            g = self.gradient(i, self.job[i], h, y)
            g_local = self.local(g, y, self.held[i][1])
            total += g
            y = y - self.rate(self.version) * g_local
        return total, y

    def local(self, g, y, x):
        return g

    # What the server does.

    def run(self, updates):
        while len(self.updates) < updates:
            self.clock, i, epoch = heapq.heappop(self.heap)
            if epoch == self.epoch[i]:
                version = self.held[i][0]
                g, y = self.work(i)
                self.receive(i, g, y, self.version - version, version)
        return self

    def step(self, direction, contributions):
        """x <- x - rate * direction: an update to which (worker, version) have contributed."""
        self.updates.append((self.clock, [(i, self.version - v) for i, v in contributions]))
        rate = 1.0 if self.displaced else self.rate(self.version)
        self.theta = self.theta - rate * direction
        self.version += 1
        self.points.append(self.theta.copy())

    def receive(self, i, g, y, tau, version):
        raise NotImplementedError


class Ringmaster(Server):
    def threshold(self):
        r = self.o["threshold"]
        return math.floor(math.sqrt(self.version + 1)) if r == "sqrt" else r

    def receive(self, i, g, y, tau, version):
        if tau < self.threshold():
            self.step(self.direction(g), [(i, version)])
            if self.o.get("stops"):
                for j in range(self.n):
                    if j != i and self.version - self.held[j][0] >= self.threshold():
                        self.send(j)
        self.send(i)

    def direction(self, g):
        return g


class RingmasterLMO(Ringmaster):
    def setup(self):
        self.m = np.zeros_like(self.theta)

    def direction(self, g):
        a = self.o["averaging"]
        a = 1 / math.sqrt(self.version + 1) if a == "sqrt" else a
        self.m = (1 - a) * self.m + a * g
        m = (1 - a) * self.m + a * g if self.o.get("nesterov") else self.m
        return np.sign(m) if self.o["norm"] == "sign" else m / np.sqrt(np.sum(m * m))


class Clipped(Server):
    def receive(self, i, g, y, tau, version):
        self.step(min(1.0, self.o["clip"] / np.sqrt(np.sum(g * g))) * g, [(i, version)])
        self.send(i)


class MSync(Server):
    """The first k fresh gradients of distinct workers; the others are stopped, or finish for nothing."""

    def receive(self, i, g, y, tau, version):
        if tau:
            return self.send(i)
        self.buffer.append((i, g, version))
        if len(self.buffer) < self.o["k"]:
            return None
        self.step(sum(g for _, g, _ in self.buffer) / len(self.buffer), [(j, v) for j, _, v in self.buffer])
        waiting = [j for j, _, _ in self.buffer] if not self.o.get("cancel", True) else range(self.n)
        self.buffer = []
        for j in sorted(waiting):
            self.send(j)
        return None


class Rennala(Server):
    """S fresh gradients of anybody."""

    def enough(self):
        return len(self.buffer) >= self.o["k"]

    def mean(self):
        return sum(g for _, g, _ in self.buffer) / len(self.buffer)

    def receive(self, i, g, y, tau, version):
        if not tau:
            self.buffer.append((i, g, version))
        if tau or not self.enough():
            if tau:
                self.held[i] = (self.version, self.theta.copy())
            return self.begin(i)
        self.step(self.mean(), [(j, v) for j, _, v in self.buffer])
        self.buffer = []
        for j in range(self.n) if self.o.get("cancel", True) else [i]:
            self.send(j)
        return None


class Malenia(Rennala):
    def counts(self):
        counts = [0] * self.n
        for i, _, _ in self.buffer:
            counts[i] += 1
        return counts

    def enough(self):
        counts = self.counts()
        return min(counts) >= 1 and self.n / sum(1 / b for b in counts) >= self.o["batch"] / self.n - 1e-12

    def mean(self):
        sums = np.zeros((self.n, len(self.theta)))
        for i, g, _ in self.buffer:
            sums[i] += g
        return np.mean([s / b for s, b in zip(sums, self.counts(), strict=True)], axis=0)


class Ringleader(Server):
    """Two tables of sums and counts; see the phases of the paper."""

    def setup(self):
        self.table, self.early = self.empty(), self.empty()
        self.collecting, self.served, self.unused = True, [], []

    def empty(self):
        return np.zeros((self.n, len(self.theta))), np.zeros(self.n, int)

    def update(self, i):
        sums, counts = self.table
        self.step(np.mean(sums / counts[:, None], axis=0), self.unused)
        self.unused = []
        self.served.append(i)
        self.send(i)
        if len(self.served) == self.n:
            self.table, self.early = self.early, self.empty()
            self.collecting, self.served = True, []
            self.unused = self.waiting

    def receive(self, i, g, y, tau, version):
        if not self.collecting and i in self.served:
            self.early[0][i] += g
            self.early[1][i] += 1
            self.waiting.append((i, version))
            return self.begin(i)
        self.table[0][i] += g
        self.table[1][i] += 1
        self.unused.append((i, version))
        if not self.collecting:
            return self.update(i)
        if self.table[1].all():
            self.collecting, self.waiting = False, []
            return self.update(i)
        return self.begin(i)


class IA2SGD(Server):
    def setup(self):
        self.rows, self.seen, self.unused = np.zeros((self.n, len(self.theta))), set(), []

    def receive(self, i, g, y, tau, version):
        self.rows[i] = g
        self.seen.add(i)
        self.unused.append((i, version))
        if len(self.seen) == self.n:
            self.step(self.rows.mean(0), self.unused)
            self.unused = []
        self.send(i)


class FedBuff(Server):
    def receive(self, i, g, y, tau, version):
        self.buffer.append((i, (1 + tau) ** -0.5 * (self.held[i][1] - y), version))
        if len(self.buffer) == self.o["k"]:
            d = sum(d for _, d, _ in self.buffer) / self.o["k"]
            self.step(self.o.get("server_rate", 1.0) * self.moved(d), [(j, v) for j, _, v in self.buffer])
            self.buffer = []
        self.send(i)

    displaced = True

    def moved(self, d):
        gamma = self.o.get("server_momentum", 0.0)
        self.velocity = gamma * getattr(self, "velocity", 0.0) + d
        return self.velocity


class FedAsync(Server):
    displaced = True

    def local(self, g, y, x):
        return g + self.o.get("proximal", 0.005) * (y - x)

    def receive(self, i, g, y, tau, version):
        if self.o.get("decay") == "hinge":
            s = 1.0 if tau <= self.o["b"] else 1 / (self.o["a"] * (tau - self.o["b"]) + 1)
        else:
            s = (tau + 1) ** -self.o.get("a", 0.5)
        alpha = self.o.get("mixing", 0.6) * s
        self.step(self.theta - ((1 - alpha) * self.theta + alpha * y), [(i, version)])
        self.send(i)


class CA2FL(Server):
    displaced = True

    def setup(self):
        self.h = defaultdict(lambda: np.zeros_like(self.theta))
        self.mean, self.sum, self.unused = np.zeros_like(self.theta), np.zeros_like(self.theta), []

    def receive(self, i, g, y, tau, version):
        delta = self.held[i][1] - y
        self.sum = self.sum + delta - self.h[i]
        self.h[i] = delta
        self.unused.append((i, version))
        if len(self.unused) == self.o["k"]:
            v = self.mean + self.sum / self.o["k"]
            self.mean = sum(self.h[j] for j in range(self.n)) / self.n
            self.step(self.o.get("server_rate", 1.0) * v, self.unused)
            self.sum, self.unused = np.zeros_like(self.theta), []
        self.send(i)


class FADAS(FedBuff):
    def setup(self):
        self.m = self.v = self.largest = np.zeros_like(self.theta)

    def receive(self, i, g, y, tau, version):
        self.buffer.append((i, self.held[i][1] - y, version))
        if len(self.buffer) == self.o["k"]:
            d = sum(d for _, d, _ in self.buffer) / self.o["k"]
            self.m = 0.9 * self.m + 0.1 * d
            self.v = 0.99 * self.v + 0.01 * d * d
            self.largest = np.maximum(self.largest, self.v)
            eta, oldest = self.o["server_rate"], max(self.version - v for _, _, v in self.buffer)
            if self.o.get("tolerance") is not None and oldest > self.o["tolerance"]:
                eta = min(eta, 1 / oldest)
            self.step(eta * self.m / (np.sqrt(self.largest) + 1e-8), [(j, v) for j, _, v in self.buffer])
            self.buffer = []
        self.send(i)


class BoundedStaleness(Server):
    """Whoever has sent waits until no worker that computes would be more than ``bound`` versions behind."""

    def receive(self, i, g, y, tau, version):
        self.buffer.append((i, g, version))
        waiting = [j for j, _, _ in self.buffer]
        computing = [self.held[j][0] for j in range(self.n) if j not in waiting]
        if all(self.version + 1 - v <= self.o["bound"] for v in computing):
            self.step(sum(g for _, g, _ in self.buffer) / len(self.buffer), [(j, v) for j, _, v in self.buffer])
            self.buffer = []
            for j in waiting:
                self.send(j)


SERVERS = {
    "ringmaster": Ringmaster,
    "ringmaster-lmo": RingmasterLMO,
    "clipped-async": Clipped,
    "k-sync": MSync,
    "backup-workers": MSync,
    "k-batch-sync": Rennala,
    "malenia": Malenia,
    "ringleader": Ringleader,
    "ia2sgd": IA2SGD,
    "dude": IA2SGD,
    "fedbuff": FedBuff,
    "fedasync": FedAsync,
    "ca2fl": CA2FL,
    "fadas": FADAS,
    "bounded-staleness": BoundedStaleness,
}
