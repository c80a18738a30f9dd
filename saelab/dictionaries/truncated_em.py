"""Sparse coding learned by truncated expectation maximisation: binary (BSC), ternary (TSC) and
Gaussian (GSC), dictionary, prior and noise all of them.

Henniges et al. 2010 (BSC), Exarchakis et al. 2012 (TSC), Sheikh et al. 2014 (GSC); ProSper, arXiv
1908.06843. Shapes: N tokens, H latents, D width.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.dictionaries import truncated
from saelab.dictionaries.truncated import Prior
from saelab.statistics.draws import stream

ROWS = 512  # tokens whose states are held at once
LEAST, MOST = 1e-4, 0.999  # that a latent may be on


class Family(NamedTuple):
    """A row of FAMILIES."""

    signs: tuple[int, ...]
    """that values may have"""
    gaussian: bool
    """whether values have a mean and a spread of their own, and each latent its own pi; else they
    are 1 and -1, and the latents share one pi"""


FAMILIES = {
    "bsc": Family((1,), False),
    "tsc": Family((1, -1), False),
    "gsc": Family((1,), True),
}


class Schedule(NamedTuple):
    """How learning goes: the best by evidence of `starts`, of `rounds` each, the first half of them
    at temperatures that fall from `hot` to 1 and with noise on the rows that falls to 0."""

    rounds: int = 50
    """expectation and maximisation in turn"""
    starts: int = 3
    """from rows of their own"""
    hot: float = 1.0
    """temperature at first"""
    shaken: float = 0.0
    """noise at first, in root mean squares of the rows"""


USUAL = Schedule()


class Learned(NamedTuple):
    """A dictionary with its prior."""

    W: Tensor
    """[H, D] rows of unit norm, by which the prior's means and variances are scaled"""
    prior: Prior
    evidence: list[float]
    """mean log probability of a token, of the states looked at, in each round"""


def learn(
    x: Tensor,
    family: str,
    n_latents: int,
    *,
    candidates: int = 8,
    active: int = 5,
    schedule: Schedule = USUAL,
    seed: int = 0,
) -> Learned:
    """Fit a family of FAMILIES to x [N, D], not centred: the model has no bias.

    >>> learned = learn(x_ND, "bsc", n_latents=10)
    >>> learned.prior.pi[0], learned.prior.noise
    """
    row, x_ND = FAMILIES[family], x.double()
    learned = []
    for number in range(schedule.starts):
        random = stream("truncated em", seed, number)
        W_HD, prior = _start(x_ND, row, n_latents, random, candidates, active)
        learned.append(_annealed(x_ND, W_HD, prior, row, schedule, random))
    return max(learned, key=lambda one: one.evidence[-1])


def _annealed(
    x_ND: Tensor,
    W_HD: Tensor,
    prior: Prior,
    row: Family,
    schedule: Schedule,
    random: torch.Generator,
) -> Learned:
    """The rounds of one start."""
    evidence, hot_rounds = [], schedule.rounds // 2
    for number in range(schedule.rounds):
        left = max(0.0, 1 - number / max(1, hot_rounds))  # of the annealing
        W_HD, prior, log = _round(x_ND, W_HD, prior, row, 1 + (schedule.hot - 1) * left)
        if schedule.shaken * left:
            noise_HD = torch.randn(W_HD.shape, generator=random, dtype=x_ND.dtype).to(x_ND)
            W_HD = W_HD + schedule.shaken * left * W_HD.square().mean().sqrt() * noise_HD
        evidence.append(log)
    norm_H = W_HD.norm(dim=1)
    scaled = _scaled(prior, norm_H)
    return Learned(W_HD / norm_H.clamp_min(1e-20)[:, None], scaled, evidence)


def _start(
    x_ND: Tensor,
    row: Family,
    n_latents: int,
    random: torch.Generator,
    candidates: int,
    active: int,
) -> tuple[Tensor, Prior]:
    """Rows about the mean of the tokens (of random tokens, where values have both signs or a
    spread, whose mean is near 0), and all that varies taken for noise."""
    chosen_H = torch.randint(len(x_ND), (n_latents,), generator=random)
    both = row.gaussian or len(row.signs) > 1
    mean_HD = x_ND[chosen_H] if both else x_ND.mean(0).expand(n_latents, -1)
    std = float(x_ND.std())
    noise_HD = torch.randn(n_latents, x_ND.shape[1], generator=random, dtype=x_ND.dtype)
    W_HD = mean_HD + std * noise_HD.to(x_ND) / 4
    ones = (1.0,) * n_latents
    variance = ones if row.gaussian else (0.0,) * n_latents
    pi = (min(0.5, 2 / n_latents),) * n_latents
    mean = (0.0,) * n_latents if row.gaussian else ones
    return W_HD, Prior(row.signs, pi, mean, variance, std, candidates, active)


def _round(
    x_ND: Tensor, W_HD: Tensor, prior: Prior, row: Family, temperature: float
) -> tuple[Tensor, Prior, float]:
    """One step of expectation and maximisation; and the evidence before it."""
    parts = [
        truncated.moments(truncated.states(x, W_HD, prior), temperature) for x in x_ND.split(ROWS)
    ]
    mean_NH, active_NH, square_NH = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("mean", "active", "square")
    )
    second_HH = torch.stack([part.second for part in parts]).sum(0)
    evidence = float(torch.cat([part.evidence for part in parts]).mean())
    second_HH.diagonal().add_(1e-9 * second_HH.diagonal().mean())
    new_HD = torch.linalg.solve(second_HH, mean_NH.T @ x_ND)
    error = x_ND.square().sum() - 2 * (mean_NH * (x_ND @ new_HD.T)).sum()
    error += (second_HH * (new_HD @ new_HD.T)).sum()
    noise = float((error / x_ND.numel()).clamp_min(1e-12).sqrt())
    on_H = active_NH.sum(0).clamp_min(1e-12)
    pi_H = (on_H / len(x_ND)).clamp(LEAST, MOST)
    if not row.gaussian:
        pi = (float(pi_H.mean()),) * len(W_HD)
        return new_HD, replace(prior, pi=pi, noise=noise), evidence
    mean_H = mean_NH.sum(0) / on_H
    variance_H = (square_NH.sum(0) / on_H - mean_H.square()).clamp_min(1e-9)
    norm_H = new_HD.norm(dim=1).clamp_min(1e-20)
    fields = {"pi": pi_H, "mean": mean_H, "variance": variance_H}
    new = replace(prior, noise=noise, **{name: tuple(t.tolist()) for name, t in fields.items()})
    return new_HD / norm_H[:, None], _scaled(new, norm_H), evidence


def _scaled(prior: Prior, norm_H: Tensor) -> Prior:
    """The prior of values that are larger by the norms of the rows, which become 1."""
    _, mean_H, variance_H = prior.tensors(norm_H)
    mean, variance = (mean_H * norm_H).tolist(), (variance_H * norm_H**2).tolist()
    return replace(prior, mean=tuple(mean), variance=tuple(variance))
