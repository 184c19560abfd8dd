"""A language model: a transformer that predicts each token from those before it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stalegrad.models.networks.network import Network, from_module

Count = Annotated[int, Field(ge=1)]


def transformer(
    input_shape: tuple[int, ...],
    classes: int,
    *,
    layers: Count = 4,
    width: Count = 128,
    heads: Count = 4,
) -> Network:
    """Decoder-only transformer with norms before attention and before the dense layers, as in GPT-2.

    With L layers of width d it has ``L * (12 d^2 + 13 d) + 2 d + (vocabulary + context) * d`` parameters: 0.82 M
    by default on ``shakespeare``. Weights start as N(0, 0.02^2), and as N(0, 0.02^2 / (2 L)) at the end of a
    residual branch. Positions are learned; the output shares its weights with the embedding. There is no dropout.

    Args:
        input_shape: (context,).
        classes: size of the vocabulary.
        layers: number of pairs of an attention and a dense layer.
        width: length of every token's vector; a multiple of ``heads``.
        heads: number of attention heads.

    Reference: Radford, Wu, Child, Luan, Amodei, Sutskever 2019, "Language models are unsupervised multitask
    learners"; Vaswani et al. 2017, "Attention is all you need".
    """
    if width % heads:
        raise ValueError(f"width = {width} is not allowed: a multiple of heads = {heads}")
    from stalegrad.models.networks.blocks import Decoder

    return from_module(lambda rngs: Decoder(classes, input_shape[0], layers, width, heads, rngs))
