"""Build models/data/fashion-mnist-small from the official Fashion-MNIST files.

Every image gets a 64-bit key from PCG64 (whose raw stream NumPy guarantees never to change). Of each class, the
1,000 training and 200 test images with the smallest keys are kept, in the official order.

    python scripts/build_fashion_mnist_small.py [DIRECTORY] [--check]
"""

import argparse
import gzip
import hashlib
import io
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stalegrad.models.datasets import load_dataset

SEED = 20170825  # the day Fashion-MNIST appeared on arXiv
PER_CLASS = {"train": 1000, "t10k": 200}
OFFICIAL = Path("/usr/share/datasets/fashion-mnist")
TARGET = Path(__file__).resolve().parents[1] / "models" / "data" / "fashion-mnist-small"

README = """\
fashion-mnist-small: a stratified subset of Fashion-MNIST

10,000 training and 2,000 test images (1,000 and 200 per class), 28 x 28 grey, in the official gzipped
IDX format, names and order. Drawn by scripts/build_fashion_mnist_small.py from the official files, which
are Copyright 2017 Zalando SE and under the MIT licence (LICENSE, in this folder).

Source: https://github.com/zalandoresearch/fashion-mnist
Cite: H. Xiao, K. Rasul, R. Vollgraf (2017). Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms. arXiv:1708.07747.
"""

LICENSE = """\
The MIT License (MIT)

Copyright 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated \
documentation files (the "Software"), to deal in the Software without restriction, including without \
limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of \
the Software, and to permit persons to whom the Software is furnished to do so, subject to the following \
conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial \
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT \
LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO \
EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER \
IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE \
USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def chosen(targets: NDArray[np.int32], per_class: int) -> NDArray[np.intp]:
    """Return the indices of the kept images, ascending."""
    keys = np.random.PCG64(SEED).random_raw(len(targets))
    members = (np.flatnonzero(targets == label) for label in np.unique(targets))
    return np.sort(np.concatenate([m[np.argsort(keys[m])[:per_class]] for m in members]))


def idx(array: NDArray[np.uint8]) -> bytes:
    """Return the array as an IDX file of unsigned bytes."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def compress(data: bytes) -> bytes:
    """Compress with gzip at level 9, without name and time: the same bytes each time (with the same zlib)."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(data)
    return buffer.getvalue()


def build(directory: Path) -> dict[str, bytes]:
    """Return the content of every file of the target folder, by name."""
    full = load_dataset("fashion-mnist", directory)
    files: dict[str, bytes] = {}
    for split, inputs, targets in (
        ("train", full.train_inputs, full.train_targets),
        ("t10k", full.test_inputs, full.test_targets),
    ):
        keep = chosen(targets, PER_CLASS[split])
        files[f"{split}-images-idx3-ubyte.gz"] = compress(idx(inputs[keep, ..., 0]))
        files[f"{split}-labels-idx1-ubyte.gz"] = compress(idx(targets[keep].astype(np.uint8)))
    return files | {
        "SHA256SUMS": sums(files),
        "README": README.encode(),
        "LICENSE": LICENSE.encode(),
    }


def sums(files: dict[str, bytes]) -> bytes:
    """Return the content of SHA256SUMS."""
    lines = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    return "".join(lines).encode()


def differences(files: dict[str, bytes], target: Path) -> list[str]:
    """Return the names of files that are missing from ``target`` or differ from the built ones."""
    return [
        name
        for name, data in files.items()
        if not (target / name).is_file()
        or hashlib.sha256((target / name).read_bytes()).digest() != hashlib.sha256(data).digest()
    ]


def deliver(files: dict[str, bytes], target: Path, *, check: bool) -> None:
    """Write the files, or only check that ``target`` holds exactly these files."""
    if check:
        wrong = differences(files, target)
        sys.exit(f"{target}: differs from what this script builds: {', '.join(wrong)}" if wrong else 0)
    target.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (target / name).write_bytes(data)
    print(f"{target}: {len(files)} files, {sum(map(len, files.values())) / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", nargs="?", type=Path, default=OFFICIAL, help="folder of the official files")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file would change")
    arguments = parser.parse_args()
    deliver(build(arguments.directory), TARGET, check=arguments.check)


if __name__ == "__main__":
    main()
