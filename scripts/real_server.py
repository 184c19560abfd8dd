"""A real parameter server with worker processes on loopback; every message is recorded.

    python scripts/real_server.py settings.json OUT

Workers sleep for given times, so that many can share a core; their gradients (softmax regression on random data)
are real. The folder OUT receives the trace and ``run.npz``: the final parameters, mini-batches in the order of
gradient ids, data, and the seconds that the server spent on each message. ``Settings`` describes the JSON file.
"""

from __future__ import annotations

import json
import multiprocessing
import struct
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stalegrad.simulator import Trace, TraceRecorder

Floats = NDArray[np.float64]

EXAMPLES, INPUTS, CLASSES, BATCH = 512, 20, 3, 16
SEED = 7
HEAD = struct.Struct("qd")
"""Head of a message in either direction: its token, and the time at which it was finished."""

CHUNKS = 8
"""Number of parts of a message on the shared link; the parts of simultaneous messages alternate."""

BURST = 0.004
"""Seconds of tokens that the link accumulates, so that a worker that wakes late loses none."""


class Settings(NamedTuple):
    """Settings of a run.

    Attributes:
        sleeps: seconds of each worker's computations, in order; the list is repeated if necessary.
        k: number of messages of an update, from distinct workers, which wait for the update: 1 is async, all
            workers is sync.
        updates: number of updates of the run.
        learning_rate: learning rate for the mean of the k gradients.
        server: seconds that the server spends on each message.
        link: seconds of a single message on a link that all workers share; 0: no link.
    """

    sleeps: list[list[float]]
    k: int
    updates: int
    learning_rate: float = 0.05
    server: float = 0.0
    link: float = 0.0


class Bucket:
    """A token bucket that all workers share, which emulates a shared link."""

    def __init__(self, context: Any) -> None:
        self.spent = context.Value("d", 0.0)  # the time at which all tokens taken so far have arrived

    def carry(self, seconds: float) -> None:
        """Wait until a message has passed that takes ``seconds`` on an idle link."""
        for _ in range(CHUNKS):
            with self.spent.get_lock():
                self.spent.value = max(self.spent.value, time.monotonic() - BURST) + seconds / CHUNKS
                until = self.spent.value
            sleep_until(until)


def sleep_until(moment: float) -> None:
    """Sleep until a time of the monotonic clock."""
    left = moment - time.monotonic()
    if left > 0:
        time.sleep(left)


def examples() -> tuple[Floats, NDArray[np.int32]]:
    """Return the training set."""
    rng = np.random.default_rng(SEED)
    labels = rng.integers(CLASSES, size=EXAMPLES)
    inputs = rng.standard_normal((EXAMPLES, INPUTS)) + rng.standard_normal((CLASSES, INPUTS))[labels]
    return inputs, labels.astype(np.int32)


def gradient(weights: Floats, inputs: Floats, labels: NDArray[np.int32]) -> Floats:
    """Return the gradient of the mean cross-entropy of softmax regression, (inputs, classes)."""
    scores = inputs @ weights
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(labels)), labels] -= 1.0
    return np.asarray(inputs.T @ shares / len(labels))


def work(worker: int, address: tuple[str, int], settings: Settings, bucket: Bucket) -> None:
    """Compute gradients at the parameters that the server sends, until it closes the connection."""
    inputs, labels = examples()
    sleeps, step = settings.sleeps[worker], 0
    with suppress(EOFError, OSError), Client(address) as server:  # the server has closed the connection
        server.send_bytes(worker.to_bytes(4, "little"))
        while True:
            sent, began = server.recv_bytes(), time.monotonic()
            token, _ = HEAD.unpack_from(sent)
            batch = np.frombuffer(sent, np.int32, BATCH, HEAD.size)
            weights = np.frombuffer(sent, np.float64, -1, HEAD.size + batch.nbytes).reshape(INPUTS, CLASSES)
            found = gradient(weights, inputs[batch], labels[batch])
            sleep_until(began + sleeps[step % len(sleeps)])
            step, finished = step + 1, time.monotonic()
            if settings.link:
                bucket.carry(settings.link)
            server.send_bytes(HEAD.pack(token, finished) + found.tobytes())


class Server:
    """The parameter server.

    Attributes:
        weights: parameters (inputs, classes).
        batches: indices of the examples of each token.
        busy: seconds that the server spent on each message.
    """

    def __init__(self, settings: Settings, workers: dict[int, Connection]) -> None:
        self.settings, self.workers = settings, workers
        self.recorder, self.rng = TraceRecorder(), np.random.default_rng(SEED + 1)
        self.weights = np.zeros((INPUTS, CLASSES))
        self.batches: list[NDArray[np.int32]] = []
        self.busy: list[float] = []

    def run(self) -> None:
        """Send the first model to all workers, then collect gradients, update and answer."""
        indices = {connection: worker for worker, connection in self.workers.items()}
        for worker in self.workers:
            self.send(worker)
        kept: dict[int, tuple[int, Floats]] = {}
        while True:
            for ready in wait(list(indices)):
                began = time.monotonic()
                worker = indices[ready]  # type: ignore[index]
                kept[worker] = self.receive(worker, began)
                if len(kept) == self.settings.k:
                    self.weights -= self.settings.learning_rate * np.mean([g for _, g in kept.values()], axis=0)
                    update = self.recorder.apply([token for token, _ in kept.values()])
                    if update + 1 == self.settings.updates:
                        return
                    for contributor in kept:
                        self.send(contributor)
                    kept = {}
                self.busy.append(time.monotonic() - began)

    def send(self, worker: int) -> None:
        """Send the parameters and the indices of a mini-batch."""
        batch = self.rng.integers(EXAMPLES, size=BATCH).astype(np.int32)
        token = self.recorder.read(worker)
        self.batches.append(batch)
        self.workers[worker].send_bytes(HEAD.pack(token, 0.0) + batch.tobytes() + self.weights.tobytes())

    def receive(self, worker: int, began: float) -> tuple[int, Floats]:
        """Receive a gradient, and spend the server's time on it."""
        came = self.workers[worker].recv_bytes()
        token, finished = HEAD.unpack_from(came)
        self.recorder.finish(token, at=finished)
        sleep_until(began + self.settings.server)
        self.recorder.receive(token)
        return token, np.frombuffer(came, np.float64, -1, HEAD.size).reshape(INPUTS, CLASSES)


def run(settings: Settings, out: Path) -> Trace:
    """Start the workers, serve them, and write the results to a directory."""
    context = multiprocessing.get_context("fork")
    bucket, count = Bucket(context), len(settings.sleeps)
    with Listener(("127.0.0.1", 0), backlog=count) as listener:
        address: Any = listener.address
        processes = [
            context.Process(target=work, args=(i, address, settings, bucket), daemon=True) for i in range(count)
        ]
        for process in processes:
            process.start()
        accepted = [listener.accept() for _ in processes]
        connections = {int.from_bytes(c.recv_bytes(), "little"): c for c in accepted}
        server = Server(settings, dict(sorted(connections.items())))
        server.run()
        for connection in accepted:
            connection.close()
    for process in processes:
        process.join()
    trace, used = server.recorder.trace(), server.recorder.used()
    trace.save(out / "trace")
    inputs, labels = examples()
    np.savez(
        out / "run.npz", weights=server.weights, inputs=inputs, labels=labels,
        batches=np.array([[server.batches[token]] for token in used]), busy=np.array(server.busy),
    )  # fmt: skip
    return trace


def main() -> None:
    settings, out = Settings(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    print(run(settings, out))


if __name__ == "__main__":
    main()
