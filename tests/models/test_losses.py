"""Losses and KL against float64, where float32 cancels most: predictions moved as a whole."""

import torch
from torch import Tensor

from saelab.models import losses

EVERYWHERE = torch.ones(4, 101, dtype=torch.bool)


def moved() -> tuple[Tensor, Tensor]:
    """Logits [4, 101, 2048], and others whose level is another one at every position."""
    draw = torch.Generator().manual_seed(0)
    clean = torch.randn(4, 101, 2048, generator=draw) * 3 + 12
    level = torch.randn(4, 101, 1, generator=draw) * 5 - 17
    return clean, clean + torch.randn(clean.shape, generator=draw) + level


def kl(clean: Tensor, other: Tensor) -> Tensor:
    log_p, log_q = (logits.log_softmax(-1) for logits in (clean, other))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def bias(kl_P: Tensor, clean: Tensor, other: Tensor) -> float:
    """Mean relative error: what an average over many predictions keeps."""
    true_P = kl(clean.double(), other.double()).flatten()
    return abs(float(((kl_P.double() - true_P) / true_P).mean()))


def test_kl_of_moved_logits_has_no_bias():
    clean, other = moved()
    tokens = torch.zeros(4, 101, dtype=torch.int64)
    compared = losses.compare(None, {"clean": clean, "other": other}, tokens, EVERYWHERE)
    assert bias(compared["other"].kl, clean, other) < 3e-7
    assert compared["clean"].kl.abs().max() == 0


def test_norms_subtracted_after_the_sum_are_caught():
    clean, other = moved()
    norm, norm_other = clean.logsumexp(-1), other.logsumexp(-1)
    p = (clean - norm[..., None]).exp()
    late = torch.einsum("ctv,ctv->ct", p, clean - other) - (norm - norm_other)
    assert bias(late.flatten(), clean, other) > 3e-7
