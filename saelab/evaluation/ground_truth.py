"""How well an SAE has found features that are known: its dictionary against their directions, its
code against their firing.

Shapes: B tokens, F latents, G true features, N pairs, S documents, R resamples, D width.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from saelab import matching
from saelab.activations import Cache
from saelab.code import Code
from saelab.errors import UsageError
from saelab.evaluation import controls
from saelab.evaluation.synthetic_cache import truth, world_of
from saelab.sae import SAE
from saelab.statistics import Estimate, share_over_documents, weights


class Partners(NamedTuple):
    """For each latent the true feature that is most like it."""

    features: Tensor
    """[F] the one with the highest |cosine| to the latent's decoder row"""
    cosines: Tensor
    """[F] that cosine"""


class Detection(NamedTuple):
    """Of each latent as a detector of its feature, [F] each (0 where undefined: it never fires, or
    there is nothing to find)."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def partners(W_dec_FD: Tensor, directions_GD: Tensor) -> Partners:
    """Each latent's feature; several latents may share one."""
    W_dec_FD, directions_GD = W_dec_FD.detach().float().cpu(), directions_GD.float().cpu()
    cosine_FG = normalize(W_dec_FD, dim=1) @ normalize(directions_GD, dim=1).T
    features_F = cosine_FG.abs().argmax(1)
    return Partners(features_F, cosine_FG.gather(1, features_F[:, None]).squeeze(1))


def uniqueness(partners_F: Partners) -> float:
    """Distinct features among the latents' partners, over the number of latents: 1 if no two
    latents share one."""
    return len(partners_F.features.unique()) / len(partners_F.features)


def counts(code: Code, truth_BG: Tensor, partners_F: Partners, *, signed: bool) -> np.ndarray:
    """[3, F]: on how many tokens each latent fires and its feature does (a hit), the latent fires,
    the feature fires.

    A latent's value times its decoder row must point the way the feature's value does. A latent
    that takes one sign only is asked for the tokens on that side; a signed one for both sides.
    """
    code, toward_F = code.to("cpu"), partners_F.cosines.sign()
    on = code.values != 0
    tokens_N, latents_N = code.tokens[on], code.features[on]
    along_N = (
        code.values[on].sign()
        * toward_F[latents_N]
        * truth_BG[tokens_N, partners_F.features[latents_N]]
    )
    hits_F = torch.bincount(latents_N[along_N > 0], minlength=code.n_features)
    fired_F = torch.bincount(latents_N, minlength=code.n_features)
    above_F, below_F = ((side > 0).sum(0)[partners_F.features] for side in (truth_BG, -truth_BG))
    present_F = above_F + below_F if signed else torch.where(toward_F >= 0, above_F, below_F)
    return torch.stack([hits_F, fired_F, present_F]).double().numpy()


def detection(counts_3F: np.ndarray) -> Detection:
    """Precision hits / fired, recall hits / present and F1 = 2 hits / (fired + present), from
    counts [..., 3, F]."""
    hits_F, fired_F, present_F = np.moveaxis(counts_3F, -2, 0)
    pairs = ((hits_F, fired_F), (hits_F, present_F), (2 * hits_F, fired_F + present_F))
    return Detection(
        *(np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0) for top, bottom in pairs)
    )


def measure(sae: SAE, cache: Cache, *, n_tokens: int = 100_000, seed: int = 0) -> dict:
    """An SAE in inference form against the world of its synthetic cache, on up to n_tokens held-out
    tokens.

    Estimates: mcc, uniqueness (dictionary only: no interval over
    tokens), precision, recall, f1 (means over the latents, 95% interval over documents), l0 with
    true_l0 beside it. Null: a random SAE of the same shape and L0. Source of the metrics:
    SynthSAEBench (arXiv 2602.14687). Raises UsageError for a cache of a model's activations.
    """
    world = world_of(cache)
    if world.spec.width != len(sae.b_dec):
        raise UsageError(f"the SAE has d_out={len(sae.b_dec)}, the world width {world.spec.width}")
    own = _Counts(sae, cache, world.directions_GD, n_tokens)
    chance = _Counts(
        controls.random_init(sae, seed + 1, own.l0), cache, world.directions_GD, n_tokens
    )
    fields = {
        "mcc": Estimate(
            matching.mcc(sae.W_dec.detach(), world.directions_GD),
            null=matching.null_mcc(sae.n_features, world.directions_GD),
        ),
        "uniqueness": Estimate(uniqueness(own.found), null=uniqueness(chance.found)),
    }
    weights_RS = weights(len(own.counts_S3F), seed)
    for name in Detection._fields:
        mean = partial(_mean_over_latents, name)
        null = float(mean(chance.counts_S3F.sum(0)))
        fields[name] = share_over_documents(own.counts_S3F, mean, weights_RS, null)
    return {
        **{name: estimate.as_dict() for name, estimate in fields.items()},
        "l0": own.l0,
        "true_l0": own.true_l0,
        "tokens": own.n_tokens,
        "n_features": sae.n_features,
    }


class _Counts:
    """Counts per document of one SAE over the held-out contexts."""

    @torch.no_grad()
    def __init__(self, sae: SAE, cache: Cache, directions_GD: Tensor, n_tokens: int) -> None:
        world, signed = world_of(cache), sae.sparsify.signed
        self.found, rows = partners(sae.W_dec, directions_GD), []
        self.n_tokens = pairs = true_pairs = 0
        for chunk in cache.contexts(cache.hooks[0], "held_out"):
            truth_CTG = truth(world, cache, chunk.tokens)
            for x_TD, truth_TG, counted_T in zip(chunk.acts, truth_CTG, chunk.counted, strict=True):
                code = sae.encode(x_TD[counted_T].to(sae.W_enc))
                truth_NG = truth_TG[counted_T]
                rows.append(counts(code, truth_NG, self.found, signed=signed))
                self.n_tokens += len(truth_NG)
                pairs += int((code.values != 0).sum())
                true_pairs += int((truth_NG != 0).sum())
                if self.n_tokens >= n_tokens:
                    break
            if self.n_tokens >= n_tokens:
                break
        self.counts_S3F = np.stack(rows)
        self.l0, self.true_l0 = pairs / self.n_tokens, true_pairs / self.n_tokens


def _mean_over_latents(name: str, counts_3F: np.ndarray) -> np.ndarray:
    return getattr(detection(counts_3F), name).mean(-1)
