"""Meta-structure: how well a small SAE tells the decoder rows of an SAE, as `meta_structure` of
SAEBench 0.6 has it; its null, which that lacks, is random rows.

Shapes: F features that fire, D width, M latents of the small SAE, B rows of a batch.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from saelab.evaluation.stated import Stated, drawn
from saelab.matching import random_rows
from saelab.sae import SAE
from saelab.sparsify import Choice
from saelab.statistics import weights

K, NARROWER = 4, 4  # latents per row; features for each latent
STEPS, BATCH, RATE = 1500, 1024, 5e-4


def fitted(rows_FD: Tensor, *, n_steps: int = STEPS, seed: int = 0) -> SAE:
    """A BatchTopK SAE of F / 4 latents, 4 per row, fitted to unit rows by Adam."""
    form = Choice(K, over="batch")
    sae = SAE(rows_FD.shape[1], max(K, len(rows_FD) // NARROWER), form, seed=seed)
    sae.b_dec.data.copy_(rows_FD.mean(0))
    optimiser = torch.optim.Adam(sae.parameters(), lr=RATE)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(n_steps):
        rows_BD = rows_FD[torch.randint(len(rows_FD), (BATCH,), generator=draw)]
        loss = (rows_BD - sae(rows_BD)).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        sae.W_dec.data.copy_(normalize(sae.W_dec.data, dim=1))
    return sae


@torch.no_grad()
def missed(sae: SAE, rows_FD: Tensor) -> Tensor:
    """[F, 2]: what the small SAE misses of each row, and the row's distance from the mean row."""
    error_F = (rows_FD - sae(rows_FD)).double().square().sum(1)
    return torch.stack([error_F, (rows_FD - rows_FD.mean(0)).double().square().sum(1)], 1)


def structure(
    W_dec_FD: Tensor, live_F: Tensor, *, n_steps: int = STEPS, seed: int = 0, null: bool = True
) -> list[Stated]:
    """`variance of rows`: the share of the unit rows' variance around their mean that the small SAE
    tells, of features that fire (rows of others stay as they were drawn); interval over features.
    Null, unless it is not asked for: as many random rows. Neither is better: it says how much the
    rows share.

    >>> structure(sae.W_dec, fires)[0].estimate.value
    """
    rows_FD = normalize(W_dec_FD.detach().float().cpu()[live_F], dim=1)
    if len(rows_FD) < 2 * K:
        return []
    sums_F2 = missed(fitted(rows_FD, n_steps=n_steps, seed=seed), rows_FD).numpy()
    weights_RF = weights(len(rows_FD), seed)
    estimate, draws_R = drawn(sums_F2, lambda s: 1 - s[..., 0] / s[..., 1], weights_RF)
    if null:
        noise_FD = random_rows(len(rows_FD), rows_FD.shape[1], seed)
        by_chance = missed(fitted(noise_FD, n_steps=n_steps, seed=seed), noise_FD).sum(0)
        estimate = estimate._replace(null=float(1 - by_chance[0] / by_chance[1]))
    return [Stated("meta-structure", "variance of rows", "none", estimate, draws_R)]
