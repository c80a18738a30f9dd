"""Codes of several layers that share a budget, and the one code that they make together.

Shapes: B tokens, L layers, F features per layer, D width, N pairs.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from saelab.code import Code
from saelab.sparsify import BuiltIn, Choice

Choose = Callable[[Tensor, int, BuiltIn], Code]  # (x [B, D], layer, sparsifier) to the layer's code


def picked(xs: Sequence[Tensor], form: BuiltIn, choose: Choose, n_features: int) -> list[Code]:
    """Each layer's pairs. Of a batch budget the k L B best of all layers: as they may all be of one
    layer, each first gives that many, and the smaller ones go."""
    if not isinstance(form, Choice) or form.over == "token":
        return [choose(x_BD, i, form) for i, x_BD in enumerate(xs)]
    total = form.k * len(xs) * len(xs[0])
    wide = replace(form, k=min(n_features, form.k * len(xs)))
    return keep_best([choose(x_BD, i, wide) for i, x_BD in enumerate(xs)], total)


def keep_best(codes: Sequence[Code], total: int) -> list[Code]:
    """The `total` pairs of largest |value| of all codes of the same tokens; equal ones by layer,
    then token, then feature."""
    size_N = torch.cat([code.values for code in codes]).abs()
    if len(size_N) <= total:
        return [*codes]
    keep_N = torch.zeros_like(size_N, dtype=torch.bool)
    keep_N[size_N.sort(descending=True, stable=True).indices[:total]] = True
    masks = keep_N.split([len(code.values) for code in codes])
    return [code.where(mask) for code, mask in zip(codes, masks, strict=True)]


def side_by_side(codes: Sequence[Code]) -> Code:
    """One code of layers' codes of the same tokens: layer i's features are numbered from i F."""
    n_features = codes[0].n_features
    order_N = torch.cat([code.tokens for code in codes]).sort(stable=True).indices
    features = torch.cat([code.features + i * n_features for i, code in enumerate(codes)])
    values = torch.cat([code.values for code in codes])
    starts = torch.stack([code.starts for code in codes]).sum(0)
    return Code(starts, features[order_N], values[order_N], n_features * len(codes))


def by_layer(code: Code, n_layers: int) -> list[Code]:
    """The layers' codes of one over all features: the inverse of `side_by_side`."""
    n_features = code.n_features // n_layers
    layer_N = code.features // n_features
    mine = [code.where(layer_N == i) for i in range(n_layers)]
    return [
        Code(own.starts, own.features - i * n_features, own.values, n_features)
        for i, own in enumerate(mine)
    ]
