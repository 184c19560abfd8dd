"""A trace on disk: read back equal, or refused with a sentence."""

import hashlib
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from stalegrad._core.files import SUMS, write_sums
from stalegrad.policies.synchrony import Async
from stalegrad.simulator.timing.cluster import Cluster
from stalegrad.simulator.timing.columns import TraceError
from stalegrad.simulator.timing.delays import Exponential
from stalegrad.simulator.timing.engine import simulate
from stalegrad.simulator.timing.limits import MOST_WORKERS
from stalegrad.simulator.timing.trace import Trace

FILES = ("messages.parquet", "updates.parquet")


def rewrite(path, file, change):
    """Let somebody else write a file of a trace, and correct checksums with it."""
    place = path / file
    pq.write_table(change(pq.read_table(place)), place)
    write_sums(path)
    return path


def told(path, **changed):
    """Change what both files say of their trace."""
    for file in FILES:
        about = json.loads(pq.read_schema(path / file).metadata[b"stalegrad"]) | changed
        text = json.dumps({name: value for name, value in about.items() if value != "left out"})
        rewrite(path, file, lambda table, text=text: table.replace_schema_metadata({"stalegrad": text}))
    return path


def test_a_saved_trace_is_read_back_equal(trace, same, tmp_path):
    loaded = Trace.load(trace.save(tmp_path / "a"))
    same(loaded, trace)
    assert loaded.spec["seed"] == 7
    assert loaded.messages.dtypes.equals(trace.messages.dtypes)


def test_an_empty_trace_is_read_back_equal(same, tmp_path):
    empty = simulate(Cluster(2, 5.0), Async(), wallclock=1.0).verify()
    assert len(empty.updates) == 0
    assert empty.column("fate").tolist() == ["pending", "pending"]
    same(Trace.load(empty.save(tmp_path / "a")), empty)


def test_saving_twice_writes_the_same_bytes(trace, tmp_path):
    trace.save(tmp_path / "a")
    trace.save(tmp_path / "b")
    Trace.load(tmp_path / "a").save(tmp_path / "c")
    for file in (*FILES, SUMS):
        contents = {(tmp_path / folder / file).read_bytes() for folder in "abc"}
        assert len(contents) == 1


def test_saving_over_a_trace_replaces_it_and_leaves_nothing_behind(trace, same, tmp_path):
    simulate(Cluster(2), Async(), updates=3).save(tmp_path / "a")
    trace.save(tmp_path / "a")
    same(Trace.load(tmp_path / "a"), trace)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_saving_over_something_else_is_refused(trace, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="is not a trace"):
        trace.save(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_checksums_are_those_of_the_files(trace, tmp_path):
    path = trace.save(tmp_path / "a")
    lines = [f"{hashlib.sha256((path / file).read_bytes()).hexdigest()}  {file}\n" for file in FILES]
    assert (path / SUMS).read_text() == "".join(lines)
    assert sorted(file.name for file in path.iterdir()) == sorted([*FILES, SUMS])


# Damage


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("keep", [0, 3, 100, -1, -20])
def test_a_truncated_file_is_named(trace, tmp_path, file, keep):
    path = trace.save(tmp_path / "a") / file
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TraceError, match=rf"{file} is damaged: its SHA-256"):
        Trace.load(tmp_path / "a")
    write_sums(tmp_path / "a")
    with pytest.raises(TraceError, match=rf"{file} is damaged or not Parquet"):
        Trace.load(tmp_path / "a")


def test_every_flipped_bit_of_the_checksums_is_noticed(trace, tmp_path):
    path = trace.save(tmp_path / "a")
    content = (path / SUMS).read_bytes()
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            (path / SUMS).write_bytes(damaged)
            with pytest.raises((TraceError, FileNotFoundError), match=r"."):
                Trace.load(path)


@pytest.mark.parametrize("file", FILES)
def test_flipped_bits_of_the_tables_are_noticed(trace, tmp_path, file):
    path = trace.save(tmp_path / "a")
    content = (path / file).read_bytes()
    rng = np.random.default_rng(0)
    for place, bit in zip(rng.integers(0, len(content), 1000), rng.integers(0, 8, 1000), strict=True):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(bit)
        (path / file).write_bytes(damaged)
        with pytest.raises(TraceError, match=rf"{file} is damaged: its SHA-256"):
            Trace.load(path)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(trace, tmp_path, file):
    (trace.save(tmp_path / "a") / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        Trace.load(tmp_path / "a")


def test_missing_checksums_are_named_and_files_beside_the_trace_do_not_matter(trace, tmp_path):
    path = trace.save(tmp_path / "a")
    (path / "notes.txt").write_text("mine")
    assert Trace.load(path).end == trace.end
    sums = (path / SUMS).read_text()
    (path / SUMS).write_text("".join(line for line in sums.splitlines(True) if "updates" not in line))
    with pytest.raises(
        TraceError, match=r"updates.parquet has no checksum in .*: it was not written with the rest"
    ):
        Trace.load(path)
    (path / SUMS).unlink()
    with pytest.raises(TraceError, match=r"SHA256SUMS is missing: .* of an older format than stalegrad-trace-3"):
        Trace.load(path)


def test_a_place_without_a_trace_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Trace.load(tmp_path / "nowhere")


# Files of others, with correct checksums


@pytest.mark.parametrize("file", FILES)
def test_a_file_that_is_not_parquet_is_named(trace, tmp_path, file):
    path = trace.save(tmp_path / "a")
    (path / file).write_text("time,messages\n1,2\n")
    write_sums(path)
    with pytest.raises(TraceError, match=rf"{file} is damaged or not Parquet"):
        Trace.load(path)


@pytest.mark.parametrize("file", FILES)
def test_a_parquet_file_of_somebody_else_is_named(trace, tmp_path, file):
    path = rewrite(trace.save(tmp_path / "a"), file, lambda _: pa.table({"time": [1.0]}))
    with pytest.raises(TraceError, match=rf"{file} is not a stalegrad trace .*: found None"):
        Trace.load(path)


def test_a_trace_of_another_format_is_named(trace, tmp_path):
    with pytest.raises(TraceError, match=r"not a stalegrad trace of format .*: found 'stalegrad-trace-99'"):
        Trace.load(told(trace.save(tmp_path / "a"), format="stalegrad-trace-99"))


def test_files_of_two_traces_are_refused(trace, tmp_path):
    path = trace.save(tmp_path / "a")
    other = simulate(Cluster(4), Async(), updates=50).save(tmp_path / "b")
    (path / "updates.parquet").write_bytes((other / "updates.parquet").read_bytes())
    write_sums(path)
    with pytest.raises(TraceError, match="they are of two traces"):
        Trace.load(path)


@pytest.mark.parametrize(("file", "column"), [(FILES[0], "staleness"), (FILES[1], "messages")])
def test_missing_columns_are_named(trace, tmp_path, file, column):
    path = rewrite(trace.save(tmp_path / "a"), file, lambda table: table.drop_columns([column]))
    with pytest.raises(TraceError, match=rf"{file} lacks the columns \['{column}'\]"):
        Trace.load(path)


@pytest.mark.parametrize(
    ("file", "column", "values", "said"),
    [
        (FILES[0], "worker", pa.array(["x"] * 197), "column worker of .* holds string: it must hold numbers"),
        (FILES[0], "fate", pa.array([1] * 197), "column fate of .* holds int64: it must hold text"),
        (FILES[0], "fate", pa.array(["gone"] * 197), "holds the fate 'gone': fate is one of used, discarded"),
        (FILES[0], "fate", pa.array([None] * 197, pa.string()), "holds the fate None: fate is one of used"),
        (FILES[0], "update", pa.array([math.nan] * 197), "whole numbers from .*; row 0 has nan"),
        (FILES[1], "messages", pa.array([None] * 50, pa.int64()), "whole numbers from .*; row 0 has nan"),
        (FILES[1], "time", pa.array([[1.0]] * 50), "column time of .* holds list<.*>: it must hold numbers"),
    ],
)
def test_columns_of_other_types_are_named(trace, tmp_path, file, column, values, said):
    def change(table):
        return table.set_column(table.column_names.index(column), column, values)

    with pytest.raises(TraceError, match=said):
        Trace.load(rewrite(trace.save(tmp_path / "a"), file, change))


def test_a_stored_trace_that_contradicts_itself_is_refused_with_the_row_of_the_file(trace, tmp_path):
    def change(table):
        frame = table.to_pandas()
        frame.loc[3, "messages"] += 1
        return pa.table(dict(frame.items())).replace_schema_metadata(table.schema.metadata)

    def reverse(table):
        frame = table.to_pandas()
        frame.loc[20, "staleness"] += 1
        return pa.table(dict(frame[::-1].items())).replace_schema_metadata(table.schema.metadata)

    with pytest.raises(TraceError, match="row 3 of the updates table"):
        Trace.load(rewrite(trace.save(tmp_path / "a"), FILES[1], change))
    with pytest.raises(TraceError, match="row 176 of the messages table"):
        Trace.load(rewrite(trace.save(tmp_path / "b"), FILES[0], reverse))


WRONG = {
    "workers": [10**12, "x", 4.5, True, None, -1, [], MOST_WORKERS + 1, math.nan, 10**400],
    "end": ["x", None, -1.0, math.nan, math.inf, True, [], {}, 10**400],
    "resolution": ["x", None, -1.0, math.inf],
    "spec": [[], "x", 1, None, True],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in WRONG for value in WRONG[field]])
def test_wrong_fields_are_named(trace, tmp_path, field, value):
    with pytest.raises(TraceError, match=f"^{field} of a trace = .* is not allowed"):
        Trace.load(told(trace.save(tmp_path / "a"), **{field: value}))


@pytest.mark.parametrize("field", WRONG)
def test_missing_fields_are_named(trace, tmp_path, field):
    with pytest.raises(TraceError, match=rf"its metadata lack \['{field}'\]"):
        Trace.load(told(trace.save(tmp_path / "a"), **{field: "left out"}))


@pytest.mark.parametrize("text", ["{", "[]", "3", "[" * 100_000, "\xff", '{"format": {}}', "null"])
def test_metadata_that_are_no_table_are_refused(trace, tmp_path, text):
    path = rewrite(
        trace.save(tmp_path / "a"), FILES[0], lambda table: table.replace_schema_metadata({"stalegrad": text})
    )
    with pytest.raises(TraceError, match=r"messages.parquet (are not the JSON|is not a stalegrad trace)"):
        Trace.load(path)


def test_a_spec_nested_too_deeply_is_refused(trace, tmp_path):
    deep: list = []
    for _ in range(200):
        deep = [deep]
    with pytest.raises(TraceError, match="nested deeper than the 32 levels"):
        Trace.load(told(trace.save(tmp_path / "a"), spec={"a": deep}))


def test_what_a_file_announces_is_compared_with_the_limit_before_it_is_read(trace, tmp_path):
    path = trace.save(tmp_path / "a")
    metadata = pq.read_schema(path / FILES[1]).metadata
    zeros = pa.table({name: np.zeros(1_000_000) for name in ("time", "messages", "gradients")})
    schema = zeros.schema.with_metadata(metadata)
    with pq.ParquetWriter(path / FILES[1], schema, compression="zstd") as file:
        for _ in range(60):
            file.write_table(zeros.replace_schema_metadata(metadata))
    write_sums(path)
    del zeros
    before = pa.total_allocated_bytes()
    with pytest.raises(TraceError, match=r"updates.parquet has 60000000 rows: at most 50000000 are allowed"):
        Trace.load(path)
    assert pa.total_allocated_bytes() - before < 2**20


def test_more_rows_can_be_allowed(trace, same, tmp_path):
    path = trace.save(tmp_path / "a")
    with pytest.raises(TraceError, match=r"has 197 rows: at most 100 are allowed, see Trace.load"):
        Trace.load(path, at_most=100)
    same(Trace.load(path, at_most=197), trace)


def test_long_text_is_not_multiplied_by_its_rows(trace, tmp_path):
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 197, pa.int32()), pa.array(["x" * 2**24]))

    def change(table):
        return table.set_column(table.column_names.index("fate"), "fate", long)

    with pytest.raises(TraceError, match="holds the fate 'xxx"):  # 197 times 64 MiB otherwise
        Trace.load(rewrite(trace.save(tmp_path / "a"), FILES[0], change))


# Anything at all

SMALL = simulate(Cluster(2, Exponential(1.0), uplink=0.25), Async(), updates=4)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([2**31, 2**63, -(2**63), 10**30, 1e308, -0.0, "stalegrad-trace-3", 4, 2.0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
cells = st.sampled_from(
    [-1, 0, 1, 2, 3, 2**31 - 1, 2**31, 2**62, 0.5, -0.0, -1.0, math.nan, math.inf, -math.inf, 1e308, 5e-324]
)


@st.composite
def stranger_tables(draw):
    """Return changes to a trace's metadata, and to some cells or types of its tables."""
    about = draw(st.dictionaries(st.sampled_from(["format", *WRONG]), json_values, max_size=2))
    file = draw(st.sampled_from(FILES))
    schema = {FILES[0]: SMALL.messages, FILES[1]: SMALL.updates}[file]
    columns = draw(st.lists(st.sampled_from(list(schema.columns)), max_size=3))
    edits = [(c, draw(st.integers(0, len(schema) - 1)), draw(cells), draw(st.booleans())) for c in columns]
    return about, file, edits


def attempt(tmp_path, about, file, edits):
    """Return the trace that is loaded after the changes, or None where it is refused with a sentence."""

    def change(table):
        for column, row, value, whole in edits:
            values = table[column].to_pylist()
            if column == "fate":
                values = [str(value) if whole else v for v in values]
            else:
                values = [value] * len(values) if whole else [*values[:row], value, *values[row + 1 :]]
                values = [float(v) for v in values] if any(isinstance(v, float) for v in values) else values
            table = table.set_column(table.column_names.index(column), column, pa.array(values))
        return table

    path = told(rewrite(SMALL.save(tmp_path / "a"), file, change), **about)
    try:
        return Trace.load(path)
    except TraceError:
        return None


def check_whatever_is_loaded(tmp_path, strange):
    trace = attempt(tmp_path, *strange)
    if trace is not None:
        trace.summary()
        assert Trace.load(trace.save(tmp_path / "b")).used.tolist() == trace.used.tolist()


lenient = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(deadline=None, max_examples=100, derandomize=True, suppress_health_check=lenient)
@given(strange=stranger_tables())
def test_a_strange_trace_is_loaded_or_refused_with_a_sentence(tmp_path, strange):
    check_whatever_is_loaded(tmp_path, strange)


@pytest.mark.slow
@settings(deadline=None, max_examples=2000, derandomize=True, suppress_health_check=lenient)
@given(strange=stranger_tables())
def test_two_thousand_strange_traces_are_loaded_or_refused_with_a_sentence(tmp_path, strange):
    check_whatever_is_loaded(tmp_path, strange)
