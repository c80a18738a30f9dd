"""Posteriors of sparse-coding models over a truncated set of states: x = s W + noise, where few of
the s are not 0 (Luecke and Eggert 2010, expectation truncation; as in ProSper, arXiv 1908.06843).

Of each token the `candidates` latents that explain it best alone are found; states are all with up
to `active` of these, every single latent, and none. A value that is not 0 is a sign times a
Gaussian: binary (BSC) and ternary (TSC) sparse coding have mean 1 and no spread, Gaussian (GSC) has
the sign 1. Shapes: N tokens, H latents, D width, G signs, C candidates, S states.
"""

import math
from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.code import Code


@dataclass(frozen=True)
class Prior:
    """What is believed of the values before a token is seen, how noisy it is, and which states are
    looked at."""

    signs: tuple[int, ...]
    """that a value may have, equally often: (1,) or (1, -1)"""
    pi: tuple[float, ...]
    """[H] probability that a latent is not 0"""
    mean: tuple[float, ...]
    """[H] of its value then, the sign left out"""
    variance: tuple[float, ...]
    """[H] of its value then; 0 for values that are fixed"""
    noise: float
    """standard deviation of what is added to each of the D numbers"""
    candidates: int
    """latents of which states are made, per token"""
    active: int
    """of these together, at most"""

    def tensors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """pi, mean and variance [H] as tensors."""
        pi_H, mean_H, variance_H = map(like.new_tensor, (self.pi, self.mean, self.variance))
        return pi_H, mean_H, variance_H


class States(NamedTuple):
    """The states of N tokens: their log joint probabilities with the token, the means of their
    values and, where these have a spread, their covariances."""

    none: Tensor
    """[N] log joint of no latent"""
    single: Tensor
    """[N, H, G] of one"""
    single_value: Tensor
    """[N, H, G]"""
    single_variance: Tensor
    """[H]"""
    candidates: Tensor
    """[N, C] latents, ascending"""
    several: Tensor
    """[N, S] log joint of two candidates or more"""
    several_value: Tensor
    """[N, S, C]"""
    several_covariance: Tensor | None
    """[N, S, C, C]"""
    supports: Tensor
    """[S, C] signs, 0 for a latent that is off"""


class Moments(NamedTuple):
    """What learning needs of the posterior."""

    evidence: Tensor
    """[N] log probability of each token, of the states looked at"""
    mean: Tensor
    """[N, H] of the values"""
    active: Tensor
    """[N, H] probability that a latent is not 0"""
    square: Tensor
    """[N, H] mean of the squared values"""
    second: Tensor
    """[H, H] sum over tokens of the mean of s s^T"""


def supports(signs: tuple[int, ...], n_candidates: int, active: int) -> Tensor:
    """[S, C]: every way in which two up to `active` of the candidates are on, with their signs."""
    rows = []
    for n_on in range(2, min(active, n_candidates) + 1):
        for on in combinations(range(n_candidates), n_on):
            for chosen in product(signs, repeat=n_on):
                row = [0] * n_candidates
                for place, sign in zip(on, chosen, strict=True):
                    row[place] = sign
                rows.append(row)
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, n_candidates)


def states(x: Tensor, W: Tensor, prior: Prior) -> States:
    """Every state of tokens x [N, D] under rows W [H, D], in float64."""
    x_ND, W_HD = x.double(), W.double()
    pi_H, mean_H, variance_H = prior.tensors(x_ND)
    noise, n_signs = prior.noise**2, len(prior.signs)
    product_NH, gram_HH = x_ND @ W_HD.T, W_HD @ W_HD.T
    odds_H = (pi_H / (1 - pi_H) / n_signs).log()
    # Common to all states: none is on, and what the noise alone would have to explain.
    constant = float((1 - pi_H).log().sum()) - x.shape[1] / 2 * math.log(2 * math.pi * noise)
    none_N = constant - x_ND.square().sum(1) / (2 * noise)

    sign_G = x_ND.new_tensor(prior.signs)
    start_HG = mean_H[:, None] * sign_G
    square_H = gram_HH.diagonal()
    grown_H = 1 + variance_H * square_H / noise
    spread_H = variance_H / grown_H
    left_NHG = product_NH[..., None] - start_HG * square_H[:, None]
    gain_NHG = start_HG * (product_NH[..., None] - start_HG * square_H[:, None] / 2) / noise
    gain_NHG = gain_NHG + left_NHG.square() * spread_H[:, None] / (2 * noise**2)
    prior_H = odds_H - grown_H.log() / 2
    single_NHG = none_N[:, None, None] + prior_H[:, None] + gain_NHG
    value_NHG = start_HG + left_NHG * spread_H[:, None] / noise

    n_candidates = min(prior.candidates, len(W_HD))
    chosen_NC = single_NHG.amax(2).topk(n_candidates, 1).indices.sort(1).values
    support_SC = supports(prior.signs, n_candidates, prior.active).to(x_ND)
    parts = _several(
        support_SC, chosen_NC, product_NH, gram_HH, (odds_H, mean_H, variance_H), noise
    )
    several_NS, value_NSC, covariance = parts
    several_NS = none_N[:, None] + several_NS
    return States(
        none_N,
        single_NHG,
        value_NHG,
        spread_H,
        chosen_NC,
        several_NS,
        value_NSC,
        covariance,
        support_SC,
    )


def _several(
    support_SC: Tensor,
    chosen_NC: Tensor,
    product_NH: Tensor,
    gram_HH: Tensor,
    prior: tuple[Tensor, Tensor, Tensor],
    noise: float,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of states of several candidates: log joint less that of none, means of the values, and their
    covariances (None where there is no spread)."""
    odds_NC, mean_NC, variance_NC = (part[chosen_NC] for part in prior)
    product_NC = product_NH.gather(1, chosen_NC)
    gram_NCC = gram_HH[chosen_NC[:, :, None], chosen_NC[:, None, :]]
    start_NSC = support_SC * mean_NC[:, None]
    shadow_NSC = start_NSC @ gram_NCC
    log_NS = odds_NC @ support_SC.abs().T
    log_NS = log_NS + (start_NSC * (product_NC[:, None] - shadow_NSC / 2)).sum(2) / noise
    if not bool((variance_NC > 0).any()):
        return log_NS, start_NSC, None
    # With R the spreads' roots (0 for a latent that is off) the covariance is
    # R (1 + R gram R / noise)^-1 R, which holds for any of them 0.
    root_NSC = support_SC.abs() * variance_NC.sqrt()[:, None]
    inner_NSCC = root_NSC[..., None] * gram_NCC[:, None] * root_NSC[..., None, :] / noise
    inner_NSCC.diagonal(dim1=2, dim2=3).add_(1)
    triangle_NSCC = torch.linalg.cholesky(inner_NSCC)
    log_NS = log_NS - triangle_NSCC.diagonal(dim1=2, dim2=3).log().sum(2)
    inverse_NSCC = torch.cholesky_inverse(triangle_NSCC)
    covariance_NSCC = root_NSC[..., None] * inverse_NSCC * root_NSC[..., None, :]
    left_NSC = product_NC[:, None] - shadow_NSC
    moved_NSC = (covariance_NSCC @ left_NSC[..., None]).squeeze(3) / noise
    log_NS = log_NS + (left_NSC * moved_NSC).sum(2) / (2 * noise)
    return log_NS, start_NSC + moved_NSC, covariance_NSCC


def moments(of: States, temperature: float = 1.0) -> Moments:
    """Of the posterior over the states, whose log joints are divided by the temperature first
    (deterministic annealing)."""
    n_tokens, n_latents, _ = of.single.shape
    joints = [of.none[:, None], of.single.reshape(n_tokens, -1), of.several]
    joint_NA = torch.cat(joints, 1) / temperature
    evidence_N = joint_NA.logsumexp(1)
    weight_NA = (joint_NA - evidence_N[:, None]).exp()
    single_NHG = weight_NA[:, 1 : 1 + of.single[0].numel()].reshape(of.single.shape)
    weight_NS = weight_NA[:, 1 + of.single[0].numel() :]

    def spread(part_NC: Tensor) -> Tensor:
        return part_NC.new_zeros(n_tokens, n_latents).scatter_(1, of.candidates, part_NC)

    alone_NH = (single_NHG * of.single_value).sum(2)
    square_NH = (single_NHG * of.single_value.square()).sum(2)
    square_NH = square_NH + single_NHG.sum(2) * of.single_variance
    weighted_NSC = weight_NS[..., None] * of.several_value
    second_NCC = weighted_NSC.transpose(1, 2) @ of.several_value
    if of.several_covariance is not None:
        second_NCC += torch.einsum("ns,nscd->ncd", weight_NS, of.several_covariance)
    rows_NCC = of.candidates[:, :, None].expand_as(second_NCC)
    places = (rows_NCC, rows_NCC.transpose(1, 2))
    second_HH = torch.zeros(n_latents, n_latents).to(second_NCC)
    second_HH.index_put_(places, second_NCC, accumulate=True)
    second_HH += torch.diag(square_NH.sum(0))
    return Moments(
        evidence_N,
        alone_NH + spread(weighted_NSC.sum(1)),
        single_NHG.sum(2) + spread(weight_NS @ of.supports.abs()),
        square_NH + spread(second_NCC.diagonal(dim1=1, dim2=2)),
        second_HH,
    )


def mode(x: Tensor, W: Tensor, prior: Prior) -> Code:
    """The code of the most probable state of each token [N, D]: the means of its values there."""
    of = states(x, W, prior)
    n_tokens, n_latents, n_signs = of.single.shape
    if not n_tokens:
        return Code.from_mask(x.new_zeros(0, n_latents), x.new_zeros(0, n_latents) > 0)
    flat_NA = of.single.reshape(n_tokens, -1)
    single = flat_NA.max(1)
    value_NH = x.new_zeros(n_tokens, n_latents)
    one_N1 = flat_NA.new_zeros(n_tokens, 1)
    one_N1 = of.single_value.reshape(n_tokens, -1).gather(1, single.indices[:, None])
    alone_NH = value_NH.scatter(1, single.indices[:, None] // n_signs, one_N1.to(x))
    value_NH = torch.where((single.values > of.none)[:, None], alone_NH, value_NH)
    if of.several.shape[1]:
        several = of.several.max(1)
        row_N = torch.arange(n_tokens, device=x.device)
        best_NC = of.several_value[row_N, several.indices]
        best_NC = best_NC * of.supports[several.indices].abs()
        both_NH = torch.zeros_like(value_NH).scatter(1, of.candidates, best_NC.to(x))
        better_N = several.values > torch.maximum(single.values, of.none)
        value_NH = torch.where(better_N[:, None], both_NH, value_NH)
    return Code.from_mask(value_NH, value_NH != 0)
