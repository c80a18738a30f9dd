"""What SAEBench's `core` says beside the report's metrics: shrinkage, how alike a feature reads and
writes, how bunched its firing is. By the right formulas (Rajamanoharan et al. 2024, arXiv
2404.16014, for the bias).

Shapes: N tokens, D width, F features, G documents.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from saelab.activations import Cache
from saelab.evaluation.firing import Firings
from saelab.evaluation.metrics import ratio
from saelab.evaluation.references import Reconstruct, coded
from saelab.evaluation.stated import Stated, drawn
from saelab.sae import SAE
from saelab.statistics import DocumentSums, weights

SIZE = 4096  # tokens coded at a time


def l2_ratio(sums: Any) -> np.ndarray:
    """Mean over tokens of ||x_hat|| / ||x||; 1 is right, below it shrinks."""
    return sums["ratio"] / sums["tokens"]


def relative_bias(sums: Any) -> np.ndarray:
    """E||x_hat||^2 / E[x . x_hat]: 1 is right, below 1 a longer x_hat would fit better; NaN of an
    x_hat that is 0."""
    return ratio(sums["square"], sums["product"])


def consistency(sums: Any) -> np.ndarray:
    """Tokens on which a feature fires over documents in which it does, mean over the features that
    fire; NaN where none does."""
    fired, documents = sums["fired"], sums["documents"]
    live = documents > 0
    each = np.divide(fired, documents, out=np.zeros(documents.shape), where=live)
    return ratio(each.sum(-1), live.sum(-1).astype(float))


@torch.no_grad()
def of_tokens(
    sae: SAE | Reconstruct, cache: Cache, hook: str, n_tokens: int, seed: int
) -> list[Stated]:
    """`l2 ratio`, `relative bias` and `consistency` on held-out tokens, in inference form, with
    intervals over documents; of a reconstruction without a code no consistency."""
    reconstruct = coded(sae) if isinstance(sae, SAE) else sae
    sums, firings = DocumentSums(), None
    for chunk in cache.counted(hook, "held_out", n_tokens):
        for x_ND, owner_N in zip(chunk.x.split(SIZE), chunk.documents.split(SIZE), strict=True):
            x_ND = x_ND.to(sae.b_dec) if isinstance(sae, SAE) else x_ND
            x_hat_ND, _, code = reconstruct(x_ND)
            sums.add(owner_N, _columns(x_ND, x_hat_ND))
            if code is not None:
                firings = firings or Firings(code.n_features)
                firings.add(owner_N, code)
    table = sums.table()
    weights_RG = weights(len(sums.documents), seed)
    made = [
        Stated("core", name, "none", *drawn(table, statistic, weights_RG))
        for name, statistic in (("l2 ratio", l2_ratio), ("relative bias", relative_bias))
    ]
    if firings is not None:
        fired_GF = firings.table(sums.documents).toarray().astype(float)
        both = {"fired": fired_GF, "documents": (fired_GF > 0).astype(float)}
        made.append(Stated("core", "consistency", "none", *drawn(both, consistency, weights_RG)))
    return made


def _columns(x_ND: Tensor, x_hat_ND: Tensor) -> dict[str, Tensor]:
    norm_N = x_ND.norm(dim=1)
    return {
        "tokens": torch.ones_like(norm_N),
        "ratio": torch.where(norm_N > 0, x_hat_ND.norm(dim=1) / norm_N, 0.0),
        "square": x_hat_ND.double().square().sum(1),
        "product": (x_hat_ND.double() * x_ND.double()).sum(1),
    }


@torch.no_grad()
def of_rows(sae: SAE, live_F: Tensor, seed: int) -> list[Stated]:
    """`encoder-decoder cosine`, mean over the features that fire, interval over features; null: of
    the encoder rows with the decoder rows in random order."""
    if sae.W_enc.shape != sae.W_dec.shape or not bool(live_F.any()):
        return []
    reads_FD, writes_FD = (w.detach().cpu().double()[live_F] for w in (sae.W_enc, sae.W_dec))
    cosine_F = cosine_similarity(reads_FD, writes_FD).numpy()
    draw = torch.Generator().manual_seed(seed)
    other_FD = writes_FD[torch.randperm(len(writes_FD), generator=draw)]
    chance = float(cosine_similarity(reads_FD, other_FD).mean())
    weights_RF = weights(len(cosine_F), seed) / len(cosine_F)
    estimate, draws_R = drawn(cosine_F[:, None], lambda sums: sums[..., 0], weights_RF)
    mean = estimate._replace(value=float(cosine_F.mean()), null=chance)
    return [Stated("core", "encoder-decoder cosine", "none", mean, draws_R)]
