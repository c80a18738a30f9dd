"""A small world whose features do not interfere, and the SAE that knows it by heart."""

import torch

from saelab import SAE
from saelab.evaluation import controls
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
    """The SAE that knows the world by heart, at a place of its own."""
    return controls.oracle(world, Origin("synthetic", model=Identity("synthetic")))


def fvu(sae: SAE, x_ND: torch.Tensor) -> float:
    """Fraction of variance unexplained, plainly."""
    with torch.no_grad():
        return float((x_ND - sae(x_ND)).square().sum() / (x_ND - x_ND.mean(0)).square().sum())
