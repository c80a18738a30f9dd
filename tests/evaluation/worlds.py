"""A small world whose features do not interfere, and the SAE that knows it by heart."""

import torch

from saelab import SAE, Threshold
from saelab.evaluation.synthetic import Spec, World
from saelab.origin import Identity, Origin

SMALL = Spec(
    width=32,
    n_features=24,
    firing=(0.3, 0.05),
    roots=2,
    branching=2,
    depth=1,
    correlation=0.0,
    separation=500,
    noise=0.02,
)


def oracle(world: World) -> SAE:
    """Encoder and decoder rows are the true directions; a level well above the noise."""
    sae = SAE(
        world.spec.width, world.spec.n_features, Threshold(level=0.2, signed=world.spec.bipolar > 0)
    )
    for weights in (sae.W_enc, sae.W_dec):
        weights.data.copy_(world.directions_GD)
    sae.b_dec.data.copy_(world.bias_D)
    sae.origin = Origin("synthetic", model=Identity("synthetic"))
    return sae


def fvu(sae: SAE, x_ND: torch.Tensor) -> float:
    """Fraction of variance unexplained, plainly."""
    with torch.no_grad():
        return float((x_ND - sae(x_ND)).square().sum() / (x_ND - x_ND.mean(0)).square().sum())
