"""A run that is interrupted goes on where it was and gives the same bytes."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pandas as pd
import pytest

from stalegrad.models import Problem
from stalegrad.policies import KAsync, Rollouts, methods
from stalegrad.simulator import (
    Cluster,
    Correlated,
    Experiment,
    Exponential,
    Gamma,
    Network,
    Record,
    Renewal,
    Result,
    replay,
    run,
    simulate,
)
from stalegrad.simulator.replays.checkpoint import MAGIC, Checkpoint

PROBLEM = Problem("softmax-regression", "fashion-mnist-small", batch_size=4)
CLUSTER = Cluster(workers=4, compute=Exponential(1.0))
BASE = Experiment(
    PROBLEM, CLUSTER, methods.async_(learning_rate=0.05), updates=90, record=Record(updates=25, per_gradient=True)
)


TRUE_TO_LIFE = Cluster(
    workers=4,
    compute=Correlated(Gamma(1.0, 0.4), 0.7),
    uplink=Exponential(0.1),
    availability=Renewal(Exponential(15.0), Exponential(3.0)),
    network=Network(message_bytes="model", ingress=1e6, egress=1e6),
)


class Breaks(Checkpoint):
    """A checkpoint that saves at every chance, and after some of them kills the run."""

    left = 0

    def save(self, about, arrays):
        super().save(about, arrays)
        self.left -= 1
        if not self.left:
            raise InterruptedError


def same_bytes(a, b):
    pd.testing.assert_frame_equal(a.history, b.history, check_exact=True)
    if a.gradients is not None:
        pd.testing.assert_frame_equal(a.gradients, b.gradients, check_exact=True)
    pd.testing.assert_frame_equal(a.trace.messages, b.trace.messages, check_exact=True)
    assert jax.tree.all(jax.tree.map(np.array_equal, (a.params, a.snapshots), (b.params, b.snapshots)))


@pytest.mark.parametrize(
    "experiment",
    [
        BASE,
        BASE.but(method=methods.dana_zero(learning_rate=0.05), record=Record(wallclock=9.0)),
        BASE.but(method=methods.k_async(k=3, learning_rate=0.05), record=Record(gap=False)),
        BASE.but(method=methods.adasync(synchrony=KAsync(1), interval=5.0, learning_rate=0.1), record=Record()),
        BASE.but(cluster=TRUE_TO_LIFE, method=methods.easgd(learning_rate=0.05), record=Record(params=True)),
        BASE.but(
            cluster=TRUE_TO_LIFE,
            method=methods.async_(synchrony=Rollouts(2, 0.5, group=2, queue=2), learning_rate=0.05),
            record=Record(wallclock=10.0),
        ),
    ],
    ids=["per gradient", "momentum", "gap off", "adaptive", "leaving and returning", "rollouts"],
)
@pytest.mark.parametrize("path", ["scan", pytest.param("loop", marks=pytest.mark.slow)])
def test_a_broken_run_goes_on_to_the_same_bytes(experiment, path, tmp_path, monkeypatch):
    expected = run(experiment, execution=path, progress=False)
    file = tmp_path / "state"
    monkeypatch.setattr("stalegrad.simulator.replays.checkpoint.Checkpoint", Breaks)
    broken = 0
    for left in (1, 2, 3, 0):
        monkeypatch.setattr(Breaks, "left", left)
        try:
            found = run(experiment, execution=path, progress=False, checkpoint=file, checkpoint_every=0.0)
            break
        except InterruptedError:
            broken += 1
    assert broken
    same_bytes(found, expected)
    assert found.trace.spec.get("decisions") == expected.trace.spec.get("decisions")
    again = run(experiment, execution=path, progress=False, checkpoint=file)
    same_bytes(again, expected)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    rows = []

    def interrupt(params):
        rows.append(params)
        if len(rows) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return {"rows": 0.0}

    trace = simulate(CLUSTER, BASE.method.synchrony, updates=90, seed=0)
    how = {"record": Record(updates=25, fn=interrupt), "seed": 0}
    file = tmp_path / "state"
    keeper, before = Checkpoint(file, {}), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="the same call continues"), keeper.guarding():
        replay(trace, PROBLEM, BASE.method, checkpoint=keeper, **how)
    assert file.exists()
    assert signal.getsignal(signal.SIGINT) is before
    found = replay(trace, PROBLEM, BASE.method, checkpoint=Checkpoint(file, {}), **how)
    pd.testing.assert_frame_equal(
        found.history, replay(trace, PROBLEM, BASE.method, **how).history, check_exact=True
    )


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr("stalegrad.simulator.replays.checkpoint.Checkpoint", Breaks)
    monkeypatch.setattr(Breaks, "left", 1)
    with pytest.raises(InterruptedError):
        run(BASE, progress=False, checkpoint=tmp_path / "state", checkpoint_every=0.0)
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content[:-20], "state is damaged: SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}"),
        (lambda content: content[:300] + b"?" + content[301:], "state is damaged"),
        (lambda content: content.replace(MAGIC, b"stalegrad-checkpoint-9\n"), "not a checkpoint of this version"),
        (lambda content: b"", "not a checkpoint of this version"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused_and_kept(file, change, message):
    file.write_bytes(change(file.read_bytes()))
    before = file.read_bytes()
    with pytest.raises(ValueError, match=message):
        run(BASE, progress=False, checkpoint=file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("count", [200, pytest.param(2_000, marks=pytest.mark.slow)])
def test_no_flipped_bit_of_a_checkpoint_is_read(file, count):
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    keeper = Checkpoint(file, {"spec": "x"})
    head = rng.integers(0, 8 * 100, count // 2)  # format and checksum, where a flip is likeliest to be missed
    for bit in [*head, *rng.integers(0, 8 * len(whole), count - len(head))]:
        content = bytearray(whole)
        content[bit // 8] ^= 1 << int(bit % 8)
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"is damaged|not a checkpoint"):
            keeper.load()


def test_the_checkpoint_of_another_run_is_refused_and_kept(file, monkeypatch):
    before = file.read_bytes()
    with pytest.raises(ValueError, match="the checkpoint of another run: its spec differs"):
        run(BASE.but(seed=1), progress=False, checkpoint=file)
    with pytest.raises(ValueError, match=r"its execution differs \(None there, loop here\)"):
        run(BASE, progress=False, execution="loop", checkpoint=file)
    monkeypatch.setattr("stalegrad.simulator.experiments.run.versions", lambda: {"jax": "0.0"})
    with pytest.raises(ValueError, match="its version of"):
        run(BASE, progress=False, checkpoint=file)
    assert file.read_bytes() == before


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_files(tmp_path):
    spec = tmp_path / "spec.toml"
    spec.write_text(BASE.but(updates=40_000, record=Record(updates=200)).to_toml())
    code = "from stalegrad.simulator.cli import main; main()"
    command = [sys.executable, "-c", code, "run", str(spec), "--checkpoint-every", "0.2", "-o"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    out, state = tmp_path / "killed", tmp_path / "killed.checkpoint"
    kills = 0
    for _ in range(4):
        process = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = state.read_bytes() if state.exists() else b""
        while process.poll() is None and (not state.exists() or state.read_bytes() == before):
            time.sleep(0.05)
        time.sleep(0.3)
        kills += process.poll() is None
        process.kill()
        process.wait()
    assert kills >= 2
    subprocess.run([*command, str(out)], check=True, capture_output=True)
    assert not state.exists()
    a, b = Result.load(out), Result.load(tmp_path / "whole")
    same_bytes(a, b)
    for name in ("spec.toml", "history.parquet", "gradients.parquet", "result.json"):
        files = [folder / name for folder in (out, tmp_path / "whole")]
        assert files[0].exists() == files[1].exists()
        if files[0].exists():
            assert files[0].read_bytes() == files[1].read_bytes()
