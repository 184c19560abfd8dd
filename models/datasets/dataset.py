"""Loaded data sets: images with classes, and texts."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Inputs = NDArray[np.uint8]
Targets = NDArray[np.int32]
Tokens = NDArray[np.int32]
Split = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set in memory; its arrays are read-only, because repeated loads share them.

    Attributes:
        name: the name it was loaded by.
        train_inputs: training images, uint8 (n, height, width, channels), with intensities from 0 to 255.
        train_targets: classes of the training images, int32 (n,), in [0, classes).
        test_inputs: images of the official test set, as ``train_inputs``.
        test_targets: classes of the test images, as ``train_targets``.
        classes: number of classes.
        mean: mean of each channel over the official training inputs, scaled to [0, 1].
        std: standard deviation of each channel over the same inputs.

    Example:
        >>> from stalegrad.models import load_dataset
        >>> data = load_dataset("fashion-mnist-small")
        >>> data.classes, data.normalised("test").dtype
        (10, dtype('float32'))
    """

    name: str
    train_inputs: Inputs
    train_targets: Targets
    test_inputs: Inputs
    test_targets: Targets
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalised(self, split: Split) -> NDArray[np.float32]:
        """Return the inputs of one split as ``(x / 255 - mean) / std``.

        Args:
            split: ``"train"`` or ``"test"``; both use the statistics of the training set.

        Returns:
            float32 (n, height, width, channels), a new array at each call.

        Raises:
            ValueError: if ``split`` is neither.
        """
        _check_split(split)
        inputs = self.train_inputs if split == "train" else self.test_inputs
        scaled = inputs.astype(np.float32)
        scaled /= 255
        scaled -= np.asarray(self.mean, np.float32)
        scaled /= np.asarray(self.std, np.float32)
        return scaled


@dataclass(frozen=True, eq=False)
class Text:
    """A text as numbers in memory; its arrays are read-only, because repeated loads share them.

    Attributes:
        name: the name it was loaded by.
        train: the tokens of the training text in order, int32 (n,), as indices into ``vocabulary``.
        test: the tokens of the official test text, as ``train``.
        vocabulary: the character or word of each token.

    Example:
        >>> from stalegrad.models import load_text
        >>> inputs, targets = load_text("shakespeare").sequences("test", context=64)
        >>> bool((inputs[0, 1:] == targets[0, :-1]).all())
        True
    """

    name: str
    train: Tokens
    test: Tokens
    vocabulary: tuple[str, ...]

    def sequences(self, split: Split, context: int) -> tuple[Tokens, Tokens]:
        """Cut one split into examples for a model that predicts each token from those before it.

        Args:
            split: ``"train"`` or ``"test"``.
            context: number of tokens in an example; tokens at the end that do not fill an example are left out.

        Returns:
            Inputs and targets, both (n, context): ``inputs.ravel()`` is the text, and ``targets.ravel()`` is the
            text from its second token.

        Raises:
            ValueError: if ``split`` is neither, or the text is too short for one example.
        """
        _check_split(split)
        tokens = self.train if split == "train" else self.test
        count = (len(tokens) - 1) // context
        if count < 1:
            raise ValueError(
                f"context = {context} is not allowed: the {split} text of {self.name!r} has {len(tokens)} tokens, "
                f"and an example takes {context + 1}"
            )
        inputs, targets = tokens[: count * context], tokens[1 : count * context + 1]
        return inputs.reshape(count, context), targets.reshape(count, context)


def _check_split(split: str) -> None:
    if split not in ("train", "test"):
        raise ValueError(f"A data set has the splits 'train' and 'test', not {split!r}.")
