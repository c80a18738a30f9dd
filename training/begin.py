"""What a run begins with: an untrained SAE, what a sample of its tokens says, shares of a budget.

Shapes: B tokens, F features, D width.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from saelab import joint
from saelab.budgets import Zipf, whole
from saelab.coder import Coder
from saelab.cross_layer import CrossLayerTranscoder
from saelab.sae import SAE
from saelab.sparsify import Choice

from . import encoder, start
from .config import Config
from .scale import Scale, geometric_median, scale_of

GEOMETRIC_MEDIAN_TOKENS = 32_768
EVERYTHING = slice(None)
Widths = tuple[Sequence[int], Sequence[int]]


def new_sae(config: Config, d_model: int, d_out: int, part: slice = EVERYTHING) -> Coder:
    """The untrained SAE of a configuration, or some of its features; its cross-layer transcoder,
    for the widths of all layers together."""
    if config.clt:
        n_layers = len(joint.parts(config.hook or ""))
        sizes = (n_layers, d_model // n_layers, config.features, config.form)
        clt = CrossLayerTranscoder(*sizes, d_out=d_out // n_layers, seed=start.seed_of(config))
        return clt.to(getattr(torch, config.dtype))
    shape = {
        "d_out": d_out,
        "transcoder": config.target is not None,
        "skip": config.skip,
        "seed": start.seed_of(config),
        "part": part,
    }
    form = config.form  # whose k may be more than the features of a part
    held = replace(form, k=1) if isinstance(form, Choice) else form
    sae = SAE(d_model, config.features, held, **shape).to(getattr(torch, config.dtype))
    sae.sparsify = form
    sae.W_enc.data *= encoder.length(config, d_model)
    return sae


def measured(x_BD: Tensor, target_BD: Tensor, widths: Widths) -> tuple[Scale, Tensor]:
    """The scale of a sample of tokens, and the target's geometric median so scaled."""
    scale = scale_of(x_BD, target_BD, widths)
    return scale, geometric_median(target_BD[:GEOMETRIC_MEDIAN_TOKENS] / scale.target)


def budget(config: Config, law: Zipf, density_F: Tensor) -> Tensor | None:
    """[F] int64: pairs per feature of a batch by the law at each feature's rank; None for the
    default, equal shares."""
    if config.shares == "equal":
        return None
    return whole(law.expected(density_F), config.k * config.batch, config.batch)
