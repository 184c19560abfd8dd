"""Benchmarks of speed: ``make bench`` prints tables and writes results/bench.md.

Times are real times: medians of several interleaved repeats, after a warm-up that compiles. A ratio is the median
of the ratios within a repeat. *Plain SGD* is one ``lax.scan`` over pre-drawn mini-batches with the parameters as
its carry. The *hand-written* slot scan adds only what staleness needs: it gathers a version and writes a version.
Both receive their mini-batch indices; stalegrad draws its own.
"""

import argparse
import platform
import time
import warnings
from pathlib import Path
from statistics import median

import engine
import jax
import jax.numpy as jnp
import numpy as np
import starting
from jax import lax

from stalegrad.models import Problem
from stalegrad.models.networks import NETWORKS
from stalegrad.models.objective import prediction
from stalegrad.policies import Async, KBatchAsync, KBatchSync, KSync, methods
from stalegrad.policies.methods import REGISTRY
from stalegrad.simulator import Cluster, Exponential, Record, ShiftedExponential, replay, simulate
from stalegrad.simulator.replays.batches import sampler
from stalegrad.simulator.replays.lowering import lower
from stalegrad.simulator.replays.run import Request, replay_together

RATE = 0.01
SILENT = {"record": Record(updates=10**9, gap=False)}


def mlp(features, hidden=64, classes=10):
    def init(key):
        a, b = jax.random.split(key)
        return {
            "hidden": {"w": 0.05 * jax.random.normal(a, (features, hidden)), "b": jnp.zeros(hidden)},
            "out": {"w": 0.1 * jax.random.normal(b, (hidden, classes)), "b": jnp.zeros(classes)},
        }

    def logits(p, x):
        return jax.nn.relu(x @ p["hidden"]["w"] + p["hidden"]["b"]) @ p["out"]["w"] + p["out"]["b"]

    return init, logits


def softmax_regression(features, classes=10):
    def init(key):
        return {"w": 0.01 * jax.random.normal(key, (features, classes)), "b": jnp.zeros(classes)}

    return init, lambda p, x: x @ p["w"] + p["b"]


def make_problem(model, features, batch_size, sampling="epochs", examples=10_000):
    init, logits = model(features)
    rng = np.random.default_rng(0)
    rows = jnp.asarray(rng.normal(size=(examples, features)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 10, examples), jnp.int32)

    def loss(p, batch, key):
        x, y = batch
        z = logits(p, x)
        return jnp.mean(jax.nn.logsumexp(z, -1) - jnp.take_along_axis(z, y[:, None], 1)[:, 0])

    return Problem.from_functions(
        init,
        loss,
        train=(rows, labels),
        batch_size=batch_size,
        sampling=sampling,
        evaluate=lambda p, data: {"loss": jnp.zeros(())},  # evaluation is not what is measured
    )


def without_evaluation(problem, objective=None):
    """Return the problem, with an evaluation that takes no time (and with this objective, if given)."""
    silent = (objective or problem.objective())._replace(
        evaluate=lambda params, stats, data: {"loss": jnp.zeros(())}
    )
    problem._objective = lambda: silent
    return problem


def plain_sgd(problem, indices):
    """Return a function that runs plain SGD over these mini-batches, for comparison."""
    objective = problem.objective()
    train, rate = objective.train, jnp.float32(RATE)

    @jax.jit
    def run(w, indices, train):
        def step(w, ids):
            batch = jax.tree.map(lambda a: a[ids], train)
            g = jax.grad(objective.loss, has_aux=True)(w, objective.stats, batch, None)[0]
            return jax.tree.map(lambda p, d: p - rate * d, w, g), None

        return lax.scan(step, w, indices)[0]

    return lambda: run(objective.init(jax.random.key(0)), indices, train)


def slot_scan(problem, indices, schedule):
    """Return a function that runs a minimal asynchronous loop: plain SGD plus one gather and one write."""
    objective = problem.objective()
    train, rate, slots = objective.train, jnp.float32(RATE), schedule.slots + schedule.scratch
    read, write = jnp.asarray(schedule.read_slot), jnp.asarray(schedule.write_slot)

    @jax.jit
    def run(w, indices, train):
        stack = jax.tree.map(lambda a: jnp.zeros((slots, *a.shape)).at[schedule.initial_slot].set(a), w)

        def step(carry, event):
            w, stack = carry
            ids, source, target = event
            batch = jax.tree.map(lambda a: a[ids], train)
            version = jax.tree.map(lambda a: a[source], stack)
            g = jax.grad(objective.loss, has_aux=True)(version, objective.stats, batch, None)[0]
            w = jax.tree.map(lambda p, d: p - rate * d, w, g)
            return (w, jax.tree.map(lambda s, p: s.at[target].set(p), stack, w)), None

        return lax.scan(step, (w, stack), (indices, read, write))[0][0]

    return lambda: run(objective.init(jax.random.key(0)), indices, train)


def clock(functions, repeats):
    """Return the seconds of each function in every repeat; they run in turn, so that other load affects all."""
    for function in functions.values():
        jax.block_until_ready(function())
    seconds = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds, one, other):
    """Return the median over repeats of the time of ``one`` over that of ``other``."""
    return median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


def overhead(name, problem, workers, gradients, repeats):
    """Compare the time of one gradient in stalegrad, the hand-written scan and plain SGD."""
    trace = simulate(Cluster(workers, compute=Exponential()), Async(), updates=gradients, seed=0)
    schedule = lower(trace)
    draw = sampler(problem.sampling, problem.objective().examples, problem.batch_size, 0, schedule, workers)
    indices = jnp.asarray(draw(0, gradients)[:, 0])
    method = methods.async_(learning_rate=RATE)
    seconds = clock(
        {
            "plain": plain_sgd(problem, indices),
            "hand": slot_scan(problem, indices, schedule),
            "stalegrad": lambda: replay(trace, problem, method, **SILENT).params,
        },
        repeats,
    )
    ratios = [("hand", "plain"), ("stalegrad", "plain"), ("stalegrad", "hand")]
    return [
        name,
        problem.batch_size,
        *(f"{median(times) / gradients * 1e6:.1f}" for times in seconds.values()),
        *(f"{ratio(seconds, *pair):.2f}" for pair in ratios),
    ]


def workload_1(_, repeats):
    """Measure softmax regression 60x10: 10,000 rows, i.i.d. batches of 32, 100 workers, 200,000 gradients."""
    gradients = 200_000
    problem = make_problem(softmax_regression, 60, 32, sampling="iid")
    cluster, method = Cluster(100, compute=Exponential()), methods.async_(learning_rate=RATE)
    trace = simulate(cluster, Async(), updates=gradients, seed=0)
    with_gap = {"record": Record(updates=10**9)}
    schedule = lower(trace)
    draw = sampler("iid", 10_000, 32, 0, schedule, 100)
    indices = jnp.asarray(draw(0, gradients)[:, 0])
    seconds = clock(
        {
            "plain SGD": plain_sgd(problem, indices),
            "hand-written": slot_scan(problem, indices, schedule),
            "replay": lambda: replay(trace, problem, method, **SILENT).params,
            "replay, with gap": lambda: replay(trace, problem, method, **with_gap).params,
            "replay, one at a time": lambda: replay(trace, problem, method, execution="scan", **SILENT).params,
            "end to end, with gap": lambda: (
                replay(simulate(cluster, Async(), updates=gradients, seed=0), problem, method, **with_gap).params
            ),
        },
        repeats,
    )
    rows = [
        [name, f"{gradients / median(times):,.0f}", f"{gradients / min(times):,.0f}"]
        for name, times in seconds.items()
    ]
    end_to_end = ratio(seconds, "replay, with gap", "end to end, with gap")
    return [*rows, ["end to end / replay, both with gap", f"{end_to_end:.2f}", ""]]


def in_windows(gradients, repeats):
    """Measure gradients per second, computed several at once and one at a time, on which the choice is based."""
    rows = []
    for name, model, features, batch in [
        ("softmax 60x10", softmax_regression, 60, 8),
        ("softmax 60x10", softmax_regression, 60, 32),
        ("softmax 60x10", softmax_regression, 60, 128),
        ("MLP 60-64-10", mlp, 60, 32),
        ("softmax 784x10", softmax_regression, 784, 32),
        ("MLP 784-64-10", mlp, 784, 32),
    ]:
        problem = make_problem(model, features, batch)
        trace = simulate(Cluster(100, compute=Exponential()), Async(), updates=gradients, seed=0)
        chosen = replay(trace, problem, methods.async_(learning_rate=RATE), **SILENT).execution
        seconds = clock(
            {
                path: lambda p=path, q=problem, t=trace: (
                    replay(t, q, methods.async_(learning_rate=RATE), execution=p, **SILENT).params
                )
                for path in ("scan", "windows")
            },
            repeats,
        )
        rates = [f"{gradients / median(times):,.0f}" for times in seconds.values()]
        rows.append([name, batch, *rates, f"{ratio(seconds, 'scan', 'windows'):.2f}", chosen])
    return rows


def many_workers(gradients, repeats):
    """Measure the time of a gradient as the cluster grows; it grows by memory traffic, not by bookkeeping."""
    problem = make_problem(mlp, 784, 32)
    method = methods.async_(learning_rate=RATE)
    functions = {}
    for workers in (8, 32, 128, 1024):
        trace = simulate(Cluster(workers, compute=Exponential()), Async(), updates=gradients, seed=0)
        functions[workers] = lambda trace=trace: replay(trace, problem, method, **SILENT).params
    seconds = clock(functions, repeats)
    return [
        [workers, f"{median(times) / gradients * 1e6:.1f}", f"{ratio(seconds, workers, 8):.2f}"]
        for workers, times in seconds.items()
    ]


def simulation_share(_, repeats):
    """Measure the simulation's share of a run (MLP, batch 32), and its time per used gradient."""
    rows = []
    problem = make_problem(mlp, 784, 32)
    for workers, synchrony, method, updates in [
        (32, Async(), methods.async_(), 4_000),
        (32, KBatchAsync(8), methods.k_batch_async(k=8), 500),
        (32, KSync(8), methods.k_sync(k=8), 500),
        (32, KBatchSync(8), methods.k_batch_sync(k=8), 500),
        (128, KSync(1), methods.k_sync(k=1), 500),
        (1024, Async(), methods.async_(), 4_000),
    ]:
        cluster = Cluster(workers, compute=ShiftedExponential(1.0, 1.0))
        trace = simulate(cluster, synchrony, updates=updates)
        seconds = clock(
            {
                "simulation": lambda c=cluster, s=synchrony, u=updates: simulate(c, s, updates=u).end,
                "replay": lambda t=trace, m=method: replay(t, problem, m, **SILENT).params,
            },
            repeats,
        )
        us = median(seconds["simulation"]) / len(trace.used) * 1e6
        share = median(e / (e + r) for e, r in zip(*seconds.values(), strict=True))
        rows.append([synchrony.name, getattr(synchrony, "k", ""), workers, f"{us:.1f}", f"{share:.1%}"])
    return rows


NEEDED = {
    "k": 4,
    "backups": 4,
    "bound": 32,
    "threshold": 32,
    "batch": 48,
    "trials": 2,
    "limit": 1.0,
    "delay": 1,
    "seconds": (1.0,) * 32,
    "tau": 2,
}


def method_cost(gradients, repeats):
    """Measure the time of a gradient of every method against async, each on its own trace (MLP, batch 32)."""
    problem, cluster = make_problem(mlp, 784, 32), Cluster(32, compute=Exponential())

    def prepared(name):
        info = REGISTRY[name]
        method = info(learning_rate=1e-4, **{k: v for k, v in NEEDED.items() if k in info.parameters})
        trace = simulate(cluster, method.synchrony, gradients=gradients, seed=0)
        return lambda: replay(trace, problem, method, **SILENT).params

    rows, plain = [], prepared("async")
    for name, info in REGISTRY.items():  # each next to async, because the machine's speed changes within a minute
        if info.controller is None:
            seconds = clock({"async": plain, "method": prepared(name)}, repeats)
            us = median(seconds["method"]) / gradients * 1e6
            rows.append([name, info.synchrony_name, f"{us:.1f}", f"{ratio(seconds, 'method', 'async'):.2f}"])
    return rows


def residual_network(_, repeats, gradients=4):
    """Measure ResNet-20, batch 128, 32 workers, against a loop over a compiled step, the fastest form on CPU."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (1_024, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, 1_024).astype(np.int32)
    network = NETWORKS["resnet-20"]((32, 32, 3), 10, norm="batch")
    objective = prediction(
        network, (images, labels), (images[:8], labels[:8]), lambda x: x.astype(np.float32) / 255
    )
    problem = without_evaluation(Problem("resnet-20", "cifar-10", batch_size=128, norm="batch"), objective)
    trace = simulate(Cluster(32, compute=Exponential()), Async(), updates=gradients, seed=0)
    draw = sampler("epochs", 1_024, 128, 0, lower(trace), 32)
    method, rate = methods.async_(learning_rate=RATE), jnp.float32(RATE)

    @jax.jit
    def step(w, stats, train, ids):
        batch = jax.tree.map(lambda a: a[ids], train)
        g, stats = jax.grad(objective.loss, has_aux=True)(w, stats, batch, None)
        return jax.tree.map(lambda p, d: p - rate * d, w, g), stats

    def plain():
        w, stats = objective.init(jax.random.key(0)), objective.stats
        for m in range(gradients):
            w, stats = step(w, stats, objective.train, draw(m, m + 1)[0, 0])
        return w

    seconds = clock(
        {"plain": plain, "stalegrad": lambda: replay(trace, problem, method, **SILENT).params}, repeats
    )
    times = [f"{median(values) / gradients * 1e3:.0f}" for values in seconds.values()]
    return [["ResNet-20", 128, *times, f"{ratio(seconds, 'stalegrad', 'plain'):.2f}"]]


def groups(gradients, repeats):
    """Measure gradients per second, over all lanes, of runs that differ in their seed."""
    rows = []
    cnn = without_evaluation(Problem("cnn-mindthestep", "fashion-mnist-small", batch_size=32))
    cases = {
        "softmax 60x10 (W1)": (make_problem(softmax_regression, 60, 32, sampling="iid"), gradients),
        "MLP 784-64-10": (make_problem(mlp, 784, 32), gradients),
        "cnn-mindthestep": (cnn, gradients // 8),
    }
    method, record = methods.async_(learning_rate=RATE), Record(updates=10**9, gap=False)
    for name, (problem, count) in cases.items():
        cluster = Cluster(32, compute=Exponential())
        traces = [simulate(cluster, Async(), updates=count, seed=seed) for seed in range(32)]
        requests = [Request(trace, problem, method, record, seed) for seed, trace in enumerate(traces)]
        seconds = clock(
            {
                1: lambda p=problem, t=traces[0]: replay(t, p, method, record=record, execution="scan").params,
                **{
                    width: lambda r=requests[:width], w=width: [done.params for done in replay_together(r, w)]
                    for width in (8, 32)
                },
            },
            repeats,
        )
        rates = {width: width * count / median(times) for width, times in seconds.items()}
        rows.append([name, *(f"{rate:,.0f}" for rate in rates.values()), f"{rates[32] / rates[1]:.1f}"])
    return rows


def table(title, columns, rows):
    """Return a Markdown table."""
    lines = [f"### {title}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows), ""])


def one_gradient(n, repeats):
    """Measure the overhead in four cases, with more gradients if they are cheap, so that startup is negligible."""
    cases = [
        ("MLP 784-64-10", mlp, 32, n),
        ("MLP 784-64-10", mlp, 128, n),
        ("softmax 784x10", softmax_regression, 32, 4 * n),
        ("softmax 784x10", softmax_regression, 128, 2 * n),
    ]
    return [
        overhead(name, make_problem(model, 784, batch), 32, count, repeats) for name, model, batch, count in cases
    ]


RATIOS = ["hand/plain", "stalegrad/plain", "stalegrad/hand"]
SECTIONS = {
    "start": (
        "Starting (seconds of CPU)",
        ["entrance", "CPU", "against import jax"],
        lambda n, repeats: starting.entrances(repeats),
    ),
    "first": (
        "First result: 2,000 updates of the quickstart's MLP in a fresh process (seconds from run(...) on)",
        ["compiled code", "start evaluated", "first row of updates", "end"],
        lambda n, repeats: starting.first_result(repeats),
    ),
    "gradient": (
        "One gradient, asynchronous, 32 workers (microseconds; ratios)",
        ["model", "batch", "plain SGD", "hand-written", "stalegrad", *RATIOS],
        one_gradient,
    ),
    "w1": (
        "Workload W1 (gradients a second)",
        ["part", "median", "best"],
        lambda n, repeats: workload_1(n, min(repeats, 3)),
    ),
    "windows": (
        "Windows of 4, asynchronous, 100 workers (gradients a second)",
        ["model", "batch", "one at a time", "in windows", "gain", "chosen"],
        lambda n, repeats: in_windows(2 * n, repeats),
    ),
    "workers": ("Workers (MLP, batch 32)", ["workers", "us per gradient", "against 8"], many_workers),
    "engine": (
        "The engine against bare SimPy (CPU)",
        engine.COLUMNS,
        lambda n, repeats: engine.events(min(repeats, 3)),
    ),
    "crowd": (
        "A hundred thousand workers, async",
        engine.CROWD_COLUMNS,
        lambda n, repeats: engine.crowd(min(repeats, 3)),
    ),
    "share": (
        "Simulation's share (MLP, batch 32)",
        ["synchrony", "k", "workers", "simulation, us per used gradient", "its share of the run"],
        simulation_share,
    ),
    "convolutions": (
        "Native convolutions, asynchronous, 32 workers (milliseconds)",
        ["model", "batch", "plain SGD", "stalegrad", "stalegrad/plain"],
        residual_network,
    ),
    "lanes": (
        "Runs in lanes, batch 32 (gradients a second, all together)",
        ["model", "1 lane", "8 lanes", "32 lanes", "32 lanes / 1"],
        lambda n, repeats: groups(n // 16, repeats),
    ),
    "methods": (
        "Methods (MLP, batch 32, 32 workers, gap off)",
        ["method", "synchrony", "us per gradient", "against async"],
        lambda n, repeats: method_cost(n // 8, repeats),
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections (all)")
    parser.add_argument("--repeats", type=int, default=5, help="number of repeats of a median (default 5)")
    parser.add_argument("--gradients", type=int, default=4_096, help="length of a timed run (default 4096)")
    parser.add_argument("--out", type=Path, default=Path("results/bench.md"))
    a = parser.parse_args()
    warnings.filterwarnings("ignore", ".*keeps a table with a row per worker")  # here all draw from the same data
    parts = [
        f"{platform.machine()}, {jax.devices()[0].device_kind}, jax {jax.__version__}, medians of {a.repeats}\n"
    ]
    print(parts[0])
    for title, columns, measure in (SECTIONS[name] for name in a.only):
        start = time.perf_counter()
        parts.append(table(title, columns, measure(a.gradients, a.repeats)))
        print(f"{parts[-1]}\n({time.perf_counter() - start:.0f} s)\n", flush=True)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text("\n".join(parts))
    print(f"wrote {a.out}")


if __name__ == "__main__":
    main()
