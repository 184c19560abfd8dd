"""Measured times: files and samples are read as meant, or refused by file and line; many times in few values."""

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from stalegrad.simulator import Cluster, Empirical
from stalegrad.simulator.timing.delays import DELAYS, as_delay, measured, reading


def written(place: Path, content: bytes) -> Path:
    file = place / "times.txt"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    "content",
    [
        b"0.3\n0.4\n0.5\n",
        b"0.3\n0.4\n0.5",
        b"\xef\xbb\xbf0.3\r\n0.4\r\n0.5\r\n",
        b"0.3\r0.4\r0.5\r",
        b"# seconds\n\n 0.3\t# first\n0.4,\n   \n+5e-1 ,\n#\n",
    ],
    ids=["plain", "no last newline", "BOM and CRLF", "CR", "comments, blanks, trailing commas"],
)
def test_a_file_is_read_whatever_wrote_it(tmp_path, content):
    file = written(tmp_path, content)
    for path in (str(file), file):
        delay = Empirical(file=path)
        assert delay.times().tolist() == [0.3, 0.4, 0.5]
        assert delay.sha256 == hashlib.sha256(content).hexdigest()
        assert as_delay(DELAYS.to_table(delay)) == delay


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        (b"0 0.3\n1 0.4\n", 1, "'0 0.3' has 2 columns"),
        (b"# rank,s\n0.1\n0,0.3\n", 3, "'0,0.3' has 2 columns"),
        (b"0.1\n0.2\t7\n", 2, "has 2 columns"),
        (b"1;2;3\n", 1, "has 3 columns"),
        (b"seconds\n0.3\n", 1, r"'seconds' is not a number.*put a # before a header"),
        (b"0.3\n0.4 s\n", 2, "has 2 columns"),
        (b"0.3\n0.4s\n", 2, "'0.4s' is not a number"),
        (b"0.3\n\n1_000\n", 3, "'1_000' is not allowed"),
        (b"0.3\nnan\n", 2, "'nan' is not allowed"),
        (b"0.3\n-0.1\n", 2, "'-0.1' is not allowed"),
        (b"0.3\ninf\n", 2, "'inf' is not allowed"),
        (b"0.3\n1e999\n", 2, "'1e999' is not allowed"),
        (b"0.3\n\xff\xfe\n", 2, "expected a text in UTF-8"),
        (b"0.3\n,\n,,1\n", 3, "is not a number|columns"),
    ],
)
def test_a_wrong_line_is_named_with_its_file_and_what_is_allowed(tmp_path, content, line, what):
    file = written(tmp_path, content)
    with pytest.raises(ValueError, match=rf"times\.txt, line {line}: .*{what}.*") as raised:
        Empirical(file=file)
    assert str(file) in str(raised.value)
    assert "one time a line, a finite number of seconds of at least 0" in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"0\n0.0\n"])
def test_a_file_without_times_is_named(tmp_path, content):
    with pytest.raises(ValueError, match=r"samples of .*times\.txt is not allowed"):
        Empirical(file=written(tmp_path, content))


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    for place in ("/dev/zero", tmp_path / "pipe", tmp_path):
        with pytest.raises(ValueError, match="is not a regular file: a file of times must be one"):
            Empirical(file=place)
    with pytest.raises(FileNotFoundError, match=r"nowhere.txt' does not exist"):
        Empirical(file=tmp_path / "nowhere.txt")
    monkeypatch.setattr(reading, "LARGEST_FILE", 10)
    with pytest.raises(ValueError, match=r"has 12 bytes: a file of times may have at most 10"):
        Empirical(file=written(tmp_path, b"0.3\n0.4\n0.5\n"))


@pytest.mark.parametrize("file", [3, b"times.txt", ["times.txt"], "", "a\0b", True, 1.5, "x" * 5_000])
def test_a_file_that_is_no_path_is_refused(file):
    with pytest.raises(ValueError, match="file of empirical = "):
        Empirical(file=file)


def test_a_file_stays_what_it_was_when_the_delay_was_made(tmp_path):
    file = written(tmp_path, b"0.3\n0.4\n")
    delay = Empirical(file=file)
    file.write_bytes(b"7\n")
    assert delay.times().tolist() == [0.3, 0.4]
    measured.load_times.cache_clear()  # as in a new process
    with pytest.raises(ValueError, match="has changed since the delay was made"):
        pickle.loads(pickle.dumps(delay)).times()
    with pytest.raises(ValueError, match="but the spec says"):
        Empirical(file=file, sha256=delay.sha256)


@pytest.mark.parametrize(
    "samples",
    [
        [0.3, 0.4],
        (0.3, 0.4),
        np.array([0.3, 0.4]),
        pd.Series([0.3, 0.4], index=[7, 8]),
        pd.DataFrame({"seconds": [0.3, 0.4]})["seconds"],
        [np.float64(0.3), np.array(0.4)],
    ],
)
def test_samples_are_a_list_an_array_or_a_column(samples):
    delay = Empirical(samples)
    assert delay == Empirical((0.3, 0.4))
    assert hash(delay) == hash(Empirical((0.3, 0.4)))
    assert as_delay(DELAYS.to_table(delay)) == delay


@pytest.mark.parametrize(
    ("samples", "match"),
    [
        ([0.3, -1.0], r"samples of empirical: number 1 = -1\.0 is not allowed: finite and of at least 0"),
        ([np.nan], "number 0 = nan"),
        (np.array([1, np.inf]), "number 1 = inf"),
        ([1.0, "3"], "number 1 = '3'"),
        ([1.0, True], "number 1 = True"),
        ([None], "number 0 = None"),
        ([1, 10**400], "number 1 = 1000"),
        ([1j], "number 0 = 1j"),
        (np.ones((2, 2)), "a list or a one-dimensional array"),
        ("0.3", "a list or a one-dimensional array"),
        ({1.0: 2.0}, "a list or a one-dimensional array"),
        (3.0, "a list or a one-dimensional array"),
    ],
)
def test_a_wrong_sample_is_named(samples, match):
    with pytest.raises(ValueError, match=match) as raised:
        Empirical(samples)
    assert len(str(raised.value)) < 400


def test_what_does_not_go_together_is_refused(tmp_path):
    file = written(tmp_path, b"0.3\n")
    for arguments in ({"samples": [1.0], "file": file}, {"weights": [1.0], "file": file}):
        with pytest.raises(ValueError, match=r"takes samples .* or a file, not both"):
            Empirical(**arguments)
    with pytest.raises(ValueError, match="sha256 of empirical = 'abc' is not allowed without a file"):
        Empirical([1.0], sha256="abc")
    with pytest.raises(ValueError, match="weights of empirical sum to inf"):
        Empirical([1.0, 2.0], weights=[1e308, 1e308])


@given(
    hnp.arrays(float, st.integers(1_001, 3_000), elements=st.floats(0, 1e6)).filter(lambda times: times.max() > 0),
    st.integers(64, 1_000),
)
def test_thinned_times_keep_mean_extremes_and_order(times, most):
    delay = Empirical.thinned(times, most)
    assert 3 <= len(delay.samples) <= most
    assert sum(delay.weights) == len(times)
    assert delay.expectation() == pytest.approx(times.mean(), rel=1e-9)
    assert (min(delay.samples), max(delay.samples)) == (times.min(), times.max())
    assert list(delay.samples) == sorted(delay.samples)


def test_thinned_times_keep_the_tail_and_the_largest_of_many():
    times = 1 + np.random.default_rng(0).pareto(2.5, 10_000)
    delay = Empirical.thinned(times, 500)
    assert delay.samples[-20:] == tuple(np.sort(times)[-20:])
    for share in (0.001, 0.1, 0.5, 0.9, 0.99, 0.999):
        assert delay.sf(np.quantile(times, share)) == pytest.approx(1 - share, abs=0.006 * min(1, 9 * (1 - share)))
    # The expected largest of 64 draws, from the distribution functions: sum of v (F(v)^64 - F(v-)^64).
    largest = []
    for values, weights in ((np.sort(times), np.ones(10_000)), (np.array(delay.samples), np.array(delay.weights))):
        below = np.append(0.0, np.cumsum(weights) / weights.sum()) ** 64
        largest.append(values @ np.diff(below))
    assert largest[1] == pytest.approx(largest[0], rel=1e-4)


def test_few_times_are_kept_and_a_cluster_of_thinned_ones_is_written():
    assert Empirical.thinned([3.0, 1.0, 2.0]) == Empirical((1.0, 2.0, 3.0))
    rng = np.random.default_rng(0)
    delays = [Empirical.thinned(rng.gamma(4.0, 0.1, 10_000)) for _ in range(4)]
    assert [as_delay(DELAYS.to_table(delay)) for delay in delays] == delays
    assert Cluster(compute=delays).size == 4
    with pytest.raises(ValueError, match="most = 5 is not allowed: a whole number of 64 to 1000"):
        Empirical.thinned([1.0], 5)
