"""Two toys of how sparse dictionaries miss what a task is made of: occlusion and over-splitting
(Makelov et al. 2024, section 6).

Shapes: N samples, D width, F latents, V attribute values.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from saelab.evaluation.supervised.scores import best_latents


class Penalised(NamedTuple):
    """An autoencoder x_hat = z W + b, z = relu((x - b) E^T + c), with unit rows of W [F, D]; E [F,
    D], c [F], b [D]."""

    E: Tensor
    c: Tensor
    W: Tensor
    b: Tensor

    def code(self, x_ND: Tensor) -> Tensor:
        """z [N, F]."""
        return torch.relu((x_ND - self.b) @ self.E.T + self.c)

    def loss(self, x_ND: Tensor, penalty: float) -> Tensor:
        """mean ||x - x_hat||^2 + penalty * mean sum z: what an L1 SAE minimises."""
        z_NF = self.code(x_ND)
        return (x_ND - z_NF @ self.W - self.b).square().sum(1).mean() + penalty * z_NF.sum(1).mean()


def train_penalised(
    x_ND: Tensor, start_FD: Tensor, penalty: float, *, steps: int, batch: int = 512, seed: int = 0
) -> Penalised:
    """An L1 SAE from the given unit rows, tied: Adam at 3e-3, falling linearly over the last half,
    rows kept at unit norm."""
    draw = torch.Generator().manual_seed(seed)
    sae = Penalised(start_FD.clone(), torch.zeros(len(start_FD)), start_FD.clone(), x_ND.mean(0))
    optimiser = torch.optim.Adam([tensor.requires_grad_() for tensor in sae], lr=3e-3)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1.0, 2 * (1 - step / steps))
        loss = sae.loss(x_ND[torch.randint(len(x_ND), (batch,), generator=draw)], penalty)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            sae.W.div_(sae.W.norm(dim=1, keepdim=True))
    return Penalised(*(tensor.detach() for tensor in sae))


def _directions(n: int, width: int, draw: torch.Generator) -> Tensor:
    return nn.functional.normalize(torch.randn(n, width, generator=draw), dim=1)


class Occlusion(NamedTuple):
    """How many of the values of each attribute have a latent of F1 above 0.9; high: the attribute
    of the larger norm."""

    high: int
    low: int


def occlusion(
    scale: float,
    *,
    norms: tuple[float, float] = (1.0, 0.25),
    n_values: int = 50,
    width: int = 64,
    n_latents: int = 512,
    penalty: float = 0.25,
    steps: int = 1000,
    seed: int = 0,
) -> Occlusion:
    """Values found by an L1 SAE trained on a = scale u_i + v_j, Gaussian directions of the given
    norms, i and j independent."""
    draw = torch.Generator().manual_seed(seed)
    high_VD, low_VD = (norm * _directions(n_values, width, draw) for norm in norms)
    values = torch.cartesian_prod(torch.arange(n_values), torch.arange(n_values))
    x_ND = scale * high_VD[values[:, 0]] + low_VD[values[:, 1]]
    sae = train_penalised(
        x_ND, _directions(n_latents, width, draw), penalty, steps=steps, seed=seed
    )
    on_NF = sae.code(x_ND) > 0
    truth = (nn.functional.one_hot(values[:, side], n_values).bool() for side in (0, 1))
    return Occlusion(*(int((best_latents(on_NF, truth_NV).f1 > 0.9).sum()) for truth_NV in truth))


class Splitting(NamedTuple):
    """The L1 loss of two latents that name the mixture's halves, and of many latents that name
    nothing."""

    two: float
    random: float


def over_splitting(
    penalty: float,
    *,
    width: int = 100,
    n_latents: int = 1000,
    bias: float = 2.35,
    n: int = 4000,
    steps: int = 500,
    seed: int = 0,
) -> Splitting:
    """Losses on fresh samples of the mixture of N(mu, I) and N(-mu, I), ||mu|| = 2.

    two: latents started at +mu and -mu, trained. random: encoder and decoder rows along other
    random samples, bias -`bias`.
    """
    draw = torch.Generator().manual_seed(seed)
    mu_D = 2 * _directions(1, width, draw)[0]

    def sample(count: int) -> Tensor:
        signs = torch.randint(2, (count, 1), generator=draw) * 2 - 1
        return signs * mu_D + torch.randn(count, width, generator=draw)

    two = train_penalised(
        sample(n), torch.stack([mu_D, -mu_D]) / 2, penalty, steps=steps, seed=seed
    )
    rows_FD = nn.functional.normalize(sample(n_latents), dim=1)
    random = Penalised(rows_FD, torch.full((n_latents,), -bias), rows_FD, torch.zeros(width))
    x_ND = sample(n)
    return Splitting(float(two.loss(x_ND, penalty)), float(random.loss(x_ND, penalty)))
