"""stalegrad through its Python interface, without caches of earlier processes.

Settings: ``defaults``, with the gap of every gradient and a history of 50 evaluations; ``fastest``, without both;
    ``replay``, as fastest, for an existing trace. Times to the first update are those of the first call, which
    compiles; an update counts when the progress callback reports it. The rate is that of a second, complete call
    (simulation, lowering, replay) in the same process.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from meter import Meter, TimeIsUp
from workloads import CLASSES, WORKLOADS, data

from stalegrad.models import Problem
from stalegrad.policies import methods
from stalegrad.simulator import Cluster, Exponential, Record, replay, simulate

IMAGES = {"mlp": "mlp", "cnn": "cnn-mindthestep"}


def softmax_regression(batch_size: int) -> Problem:
    """Return W1's problem, made of functions, because its rows are not a data set of the package."""
    rows, labels = data("w1")

    def init(key: jax.Array) -> dict[str, jax.Array]:
        return {"w": 0.01 * jax.random.normal(key, (rows.shape[1], CLASSES)), "b": jnp.zeros(CLASSES)}

    def loss(p: dict[str, jax.Array], batch: tuple[jax.Array, jax.Array], key: jax.Array) -> jax.Array:
        x, y = batch
        z = x @ p["w"] + p["b"]
        return jnp.mean(jax.nn.logsumexp(z, -1) - jnp.take_along_axis(z, y[:, None], 1)[:, 0])

    train = (rows, labels.astype(np.int32))
    return Problem.from_functions(init, loss, train=train, batch_size=batch_size, sampling="iid")


def main() -> None:
    meter = Meter()
    a = meter.arguments
    workload = WORKLOADS[a.workload]
    if a.workload == "w1":
        problem = softmax_regression(workload.batch_size)
    else:
        name = IMAGES[workload.model]
        problem = Problem(name, "fashion-mnist-small", batch_size=workload.batch_size, sampling="iid")
    method = methods.async_(learning_rate=workload.learning_rate)
    record = Record() if a.setting == "defaults" else Record(updates=a.gradients, gap=False)

    def simulated():
        return simulate(
            Cluster(a.workers, compute=Exponential()), method.synchrony, updates=a.gradients, seed=a.seed
        )

    def told(updates: int) -> None:
        if updates:
            meter.update(updates, updates)

    trace = simulated() if a.setting == "replay" else None
    meter.call()
    try:
        result = replay(trace or simulated(), problem, method, record=record, seed=a.seed, progress=told)
    except TimeIsUp:
        meter.done((), float("nan"), {"jax": jax.__version__})
        return
    again = time.perf_counter()
    warm = replay(trace or simulated(), problem, method, record=record, seed=a.seed)
    rate = a.gradients / (time.perf_counter() - again)
    parameters = [np.asarray(leaf) for leaf in jax.tree.leaves(result.params)]
    for leaf, other in zip(parameters, jax.tree.leaves(warm.params), strict=True):
        np.testing.assert_array_equal(leaf, other)
    loss = float(result.history["train_loss"].iloc[-1])
    meter.done(parameters, loss, {"jax": jax.__version__}, rate)


if __name__ == "__main__":
    main()
