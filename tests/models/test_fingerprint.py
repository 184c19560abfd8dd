"""Local data without an official checksum: what changes is noticed, in one process and by the store."""

import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from stalegrad.models import Problem
from stalegrad.models.datasets import data_fingerprint, fingerprint, load_text
from stalegrad.models.datasets.fingerprints import _known


def tree(place, files):
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def test_a_fingerprint_is_of_names_and_contents_and_of_nothing_else(tmp_path):
    files = {"b/x": b"1", "a": b"23", "c/d/e": b""}
    one = fingerprint(tree(tmp_path / "one", files))
    assert one == fingerprint(tree(tmp_path / "two", dict(reversed(files.items()))))
    others = [{**files, "a": b"24"}, {"b/y": b"1", "a": b"23", "c/d/e": b""}, {"b/x": b"1", "a": b"23"}]
    others += [{**files, "f": b""}, {"b/x": b"", "a": b"231", "c/d/e": b""}]
    found = {fingerprint(tree(tmp_path / f"other{i}", other)) for i, other in enumerate(others)}
    assert len(found | {one}) == 6
    tree(tmp_path / "one", {".hidden": b"", ".git/x": b""})
    assert fingerprint(tmp_path / "one") == one


def test_a_file_is_read_again_only_if_it_changed(tmp_path, monkeypatch):
    place = tree(tmp_path / "data", {"a": b"1", "b": b"2"})
    later = time.time_ns() + 10**10
    monkeypatch.setattr(time, "time_ns", lambda: later)
    first = fingerprint(place)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert fingerprint(place) == first
    monkeypatch.undo()
    (place / "a").write_bytes(b"3")
    assert fingerprint(place) != first


def test_what_was_written_a_moment_ago_is_read_again_though_its_state_is_the_same(tmp_path):
    place = tree(tmp_path / "data", {"a": b"1"})
    before, states = fingerprint(place), len(_known)
    assert len(_known) == states  # too young to be known
    about = os.stat(place / "a")
    with (place / "a").open("r+b") as opened:
        opened.write(b"2")
    os.utime(place / "a", ns=(about.st_atime_ns, about.st_mtime_ns))
    assert fingerprint(place) != before


def test_only_data_without_a_known_checksum_have_one(tmp_path):
    for name in ("fashion-mnist-small", "shakespeare", "mnist", "cifar-10"):
        assert data_fingerprint(name) is None
    place = tree(tmp_path, {"ptb.train.txt": b"a b\n", "ptb.test.txt": b"b\n", "notes": b""})
    first = data_fingerprint("penn-treebank", place)
    assert first == fingerprint(place, [place / "ptb.train.txt", place / "ptb.test.txt"])
    (place / "notes").write_bytes(b"other")
    assert data_fingerprint("penn-treebank", place) == first
    (place / "ptb.test.txt").write_bytes(b"a\n")
    assert data_fingerprint("penn-treebank", place) != first
    with pytest.raises(FileNotFoundError, match="needs wiki"):
        data_fingerprint("wikitext-2", place)


def test_changed_texts_are_loaded_again_and_a_byte_order_mark_is_no_word(tmp_path):
    tree(tmp_path, {"ptb.train.txt": b"\xef\xbb\xbfa b\n", "ptb.test.txt": b"\xef\xbb\xbfb\n"})
    first = load_text("penn-treebank", tmp_path)
    assert first.vocabulary == ("a", "b", "<eos>")
    assert load_text("penn-treebank", tmp_path) is first
    (tmp_path / "ptb.train.txt").write_bytes(b"b c\n")
    assert load_text("penn-treebank", tmp_path).vocabulary == ("b", "c", "<eos>")


def test_changed_images_are_another_objective_in_one_process(tmp_path):
    def write(shade):
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        for split in ("train", "val"):
            for name, value in (("a", shade), ("b", 255 - shade)):
                (tmp_path / "data" / split / name).mkdir(parents=True)
                Image.fromarray(np.full((8, 8), value, np.uint8)).save(tmp_path / "data" / split / name / "0.png")

    problem = Problem("mlp", "image-folder", directory=tmp_path / "data", image_size=8, batch_size=2, hidden=[2])
    write(0)
    first, digest = problem.objective(), data_fingerprint("image-folder", tmp_path / "data")
    assert problem.objective() is first
    write(200)
    assert data_fingerprint("image-folder", tmp_path / "data") != digest
    assert problem.objective() is not first
    write(0)
    assert data_fingerprint("image-folder", tmp_path / "data") == digest
