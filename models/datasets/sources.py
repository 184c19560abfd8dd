"""The data sets by name: the files of each, the places where they are searched, and their checksums.

A further data set is one entry; a further format is an entry with its own ``read``.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stalegrad._core.functions import resolve
from stalegrad._core.registry import Registry
from stalegrad.models.datasets.fetching import File, Source

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's training images, per channel."""


def _later(module: str, name: str) -> Callable[..., Any]:
    """Return a function that is imported when it is called, so that listing data sets does not import NumPy."""

    def call(*arguments: object) -> Any:
        return resolve(f"stalegrad.models.datasets.{module}:{name}")(*arguments)

    return call


read_idx, idx_bytes = _later("formats", "read_idx"), _later("formats", "idx_bytes")
read_cifar, read_characters = _later("formats", "read_cifar"), _later("formats", "read_characters")
read_words, load_folder = _later("formats", "read_words"), _later("folder", "load_folder")

_IDX_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _idx_files(sha256: Sequence[str | None], gz_sha256: Sequence[str | None]) -> tuple[File, ...]:
    return tuple(map(File, _IDX_NAMES, sha256, gz_sha256))


def _wikitext(name: str, size: str) -> Source:
    return Source(
        summary=f"{name.replace('wikitext', 'WikiText')}, {size}; local files only",
        files=(File("wiki.train.tokens"), File("wiki.test.tokens")),
        read=read_words,
        largest=2**30,
        kind="text",
        url=f"https://wikitext.smerity.com/{name}-v1.zip",
        folder=name,
        download=False,
    )


FOLDER = "image-folder"
"""Name for the user's own images: they are streamed from a directory."""

_TORONTO = "https://www.cs.toronto.edu/~kriz/"

SOURCES = Registry[Source](
    "data set",
    {
        "fashion-mnist-small": Source(
            summary="Fashion-MNIST, 1,000 training and 200 test images per class; comes with the package",
            files=tuple(map(File, _IDX_NAMES)),  # their checksums are beside them, in SHA256SUMS
            mean=(0.2860,),
            std=(0.3530,),
            read=read_idx,
            announced=idx_bytes,
        ),
        "fashion-mnist": Source(
            summary="Fashion-MNIST, 60,000 + 10,000 grey images of clothing, 28 x 28, 10 classes",
            files=_idx_files(
                (
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                ),
                (
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
            ),
            mean=(0.2860,),
            std=(0.3530,),
            read=read_idx,
            announced=idx_bytes,
            url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            system=Path("/usr/share/datasets/fashion-mnist"),
            package="dataset-fashion-mnist",
        ),
        "mnist": Source(
            summary="MNIST, 60,000 + 10,000 grey images of handwritten digits, 28 x 28, 10 classes",
            files=_idx_files(
                (
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
                (
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                ),
            ),
            mean=(0.1307,),
            std=(0.3081,),
            read=read_idx,
            announced=idx_bytes,
            url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
        "cifar-10": Source(
            summary="CIFAR-10, 50,000 + 10,000 colour images of things and animals, 32 x 32, 10 classes",
            files=(
                File("data_batch_1.bin", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
                File("data_batch_2.bin", "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
                File("data_batch_3.bin", "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
                File("data_batch_4.bin", "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
                File("data_batch_5.bin", "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
                File("test_batch.bin", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
            ),
            read=read_cifar,
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2023, 0.1994, 0.2010),  # as in the papers' code: the mean over images of each image's deviation
            url=_TORONTO,
            archive=File(
                "cifar-10-binary.tar.gz",
                gz_sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
            folder="cifar-10-batches-bin",
        ),
        "cifar-100": Source(
            summary="CIFAR-100, 50,000 + 10,000 colour images, 32 x 32, 100 classes (the fine labels)",
            files=(
                File("train.bin", "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"),
                File("test.bin", "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"),
            ),
            read=read_cifar,
            mean=(0.5071, 0.4865, 0.4409),
            std=(0.2009, 0.1984, 0.2023),  # as for cifar-10
            classes=100,
            url=_TORONTO,
            archive=File(
                "cifar-100-binary.tar.gz",
                gz_sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
            folder="cifar-100-binary",
        ),
        FOLDER: Source(
            summary="your own images, DIRECTORY/train/<class>/... and DIRECTORY/test (or val); "
            "read while training",
            files=(),
            read=load_folder,
            mean=MEAN,
            std=STD,
            url="",
        ),
        "shakespeare": Source(
            summary="Eight plays by Shakespeare, 1.0 MB, character by character; comes with the package",
            files=(File("train.txt"), File("test.txt")),  # their checksums are beside them, in SHA256SUMS
            read=read_characters,
            kind="text",
        ),
        "penn-treebank": Source(
            summary="Penn Treebank as prepared by Mikolov, 0.93 M training words, vocabulary 10,000; "
            "local files only",
            files=(File("ptb.train.txt"), File("ptb.test.txt")),
            read=read_words,
            largest=2**30,
            kind="text",
            url="http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz",
            folder="simple-examples/data",
            download=False,
        ),
        "wikitext-2": _wikitext("wikitext-2", "2.1 M training words, vocabulary 33,278"),
        "wikitext-103": _wikitext("wikitext-103", "103 M training words, vocabulary 267,735"),
    },
)
"""The data sets by name; ``SOURCES.register`` adds your own."""


def list_datasets() -> dict[str, str]:
    """Return the name of every data set, with a description in one line.

    Example:
        >>> from stalegrad.models import list_datasets
        >>> {"fashion-mnist-small", "shakespeare"} <= set(list_datasets())
        True
    """
    return {name: source.summary for name, source in SOURCES.items()}
