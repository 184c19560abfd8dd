"""Asynchronous synchronies: async, K-async, K-batch-async."""

from __future__ import annotations

from stalegrad._core.specs import PositiveFloat, PositiveInt, spec
from stalegrad.policies.synchrony.base import Messages, Synchrony, check_k
from stalegrad.policies.synchrony.programs import DISCARD, NOBODY, WAIT, Decision, Free, Received, ServerProgram
from stalegrad.policies.synchrony.waiting import Waiting, Window


@spec
class Async(Synchrony):
    """Asynchronous: every gradient is an update; its worker, and only that one, reads the new version.

    Example:
        >>> import stalegrad as sg
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.Async(), updates=4)
        >>> trace.update_times.tolist(), trace.staleness.tolist()
        ([1.0, 2.0, 2.5, 3.0], [0, 0, 2, 1])
    """

    def serve(self, workers: int) -> ServerProgram:
        """Apply every message at once."""
        answers = [Decision(apply=True, send=(worker,)) for worker in range(workers)]
        event = yield WAIT
        while True:
            event = yield answers[event.worker]

    def pattern(self, workers: int) -> Free | None:
        """Return that no worker waits."""
        return Free(1)


@spec
class Dylu(Async):
    """Asynchronous (DyLU), with fewer local steps for slower workers, so that all take about as long.

    The fastest worker takes ``local_steps`` steps, another one floor(``local_steps`` * its speed / the fastest
    speed), at least ``least``.

    Args:
        seconds: seconds of a local step, a list of one per worker.
        least: local steps at least.

    Reference: Liu et al., Asynchronous Local-SGD Training for Language Modeling, 2024,
    https://arxiv.org/abs/2401.09135 (dynamic local updates).

    Example:
        >>> from stalegrad.policies import Dylu
        >>> from stalegrad.simulator import Cluster, simulate
        >>> synchrony = Dylu(seconds=[1.0, 3.0], local_steps=6)
        >>> trace = simulate(Cluster(compute=[1.0, 3.0]), synchrony, updates=2)
        >>> trace.update_times.tolist(), trace.updates["gradients"].tolist()
        ([6.0, 6.0], [6, 2])
    """

    seconds: tuple[PositiveFloat, ...]
    least: PositiveInt = 1

    def check(self, workers: int) -> None:
        """Raise ValueError unless ``seconds`` has one entry per worker."""
        if len(self.seconds) != workers:
            raise ValueError(f"seconds of {self.name} has {len(self.seconds)} entries for {workers} workers")

    def steps_of(self, worker: int) -> int:
        """Return the local steps of a worker, by its speed."""
        share = min(self.seconds) / self.seconds[worker]
        return max(self.least, int(self.local_steps * share * (1 + 1e-12)))

    def pattern(self, workers: int) -> Free | None:
        """Return that messages differ."""
        return None


@spec
class KBatchAsync(Waiting):
    """K-batch-async: every ``k``-th received gradient makes an update of the last ``k``.

    No worker idles and no message is cancelled: each worker reads the current version right after it has sent.

    Args:
        k: gradients of an update.
        grace: seconds that the server waits on after the k-th gradient: messages received by then count, too.
        deadline: seconds after the last update at which the server takes what it has, or else the first gradient.

    Reference: Dutta et al. 2018, section 2.3.

    Example:
        >>> import stalegrad as sg
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 2.5]), sg.KBatchAsync(2), updates=3)
        >>> trace.update_times.tolist(), trace.staleness.tolist()
        ([2.0, 3.0, 5.0], [0, 0, 1, 0, 0, 0])
    """

    k: Messages

    def serve(self, workers: int) -> ServerProgram:
        """Count messages; the sender always reads."""
        if self.timed:
            yield from self._serve_windows()
        event = yield WAIT
        while True:
            for _ in range(self.k - 1):
                event = yield Decision(send=(event.worker,))
            event = yield Decision(apply=True, send=(event.worker,))

    def _serve_windows(self) -> ServerProgram:
        """Update when the window closes; the sender always reads."""
        window = Window(self.k, self.grace, self.deadline)
        event = yield window.begin()
        while True:
            closes, wake_after, tag = window.note(event)
            send = (event.worker,) if isinstance(event, Received) else NOBODY
            event = yield Decision(closes, send, wake_after=wake_after, tag=tag)

    def pattern(self, workers: int) -> Free | None:
        """Return that no worker waits, unless the server has a timer."""
        return None if self.timed else Free(self.k)


@spec
class KAsync(Waiting):
    """K-async: an update waits for ``k`` distinct workers; the others keep running on what they read.

    The first k - 1 idle until the update; then exactly the ``k`` contributors read the new version.

    Args:
        k: distinct workers whose gradients make an update; at most their number.
        grace: seconds that the server waits on after the k-th gradient: messages received by then count, too.
        deadline: seconds after the last update at which the server takes what it has, or else the first gradient.

    Reference: Dutta et al. 2018, section 2.3.

    Example:
        >>> import stalegrad as sg
        >>> trace = sg.simulate(sg.Cluster(compute=[1.0, 1.5, 4.0]), sg.KAsync(2), updates=3)
        >>> trace.update_times.tolist(), trace.staleness.tolist()
        ([1.5, 3.0, 4.0], [0, 0, 0, 0, 0, 2])
    """

    k: PositiveInt

    def check(self, workers: int) -> None:
        """Raise ValueError if ``k`` exceeds the number of workers."""
        check_k(self.k, workers, self.name)

    def serve(self, workers: int) -> ServerProgram:
        """Collect ``k`` gradients, fresh or stale, update, answer their workers.

        A second one, of a worker that has left and returned meanwhile, is discarded.
        """
        if self.timed:
            yield from self._serve_windows(workers)
        contributors = dict[int, None]()  # in the order in which they came
        event = yield WAIT
        while True:
            if event.worker in contributors:
                event = yield DISCARD
                continue
            contributors[event.worker] = None
            if len(contributors) < self.k:
                event = yield WAIT
            else:
                send, contributors = contributors, {}
                event = yield Decision(apply=True, send=send)

    def _serve_windows(self, workers: int) -> ServerProgram:
        """Update when the window closes, and answer its workers."""
        contributors, window = dict[int, None](), Window(self.k, self.grace, self.deadline)
        event = yield window.begin()
        while True:
            if isinstance(event, Received):
                if event.worker in contributors:
                    event = yield DISCARD
                    continue
                contributors[event.worker] = None
            closes, wake_after, tag = window.note(event, complete=len(contributors) == workers)
            send = tuple(contributors) if closes else NOBODY
            if closes:
                contributors.clear()
            event = yield Decision(closes, send, wake_after=wake_after, tag=tag)
