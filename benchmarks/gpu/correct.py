"""Whether every form of choosing gives float64's pairs, and gradients are as exact as torch's, on
the card itself.

Shapes: B tokens, F features, N pairs.
"""

from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.card import Card, Rows, attempt
from saelab import Code, kernels
from saelab.kernels import autograd
from saelab.sparsify import Choice, Sparsify, Threshold
from tests.kernels import inputs
from tests.kernels.truth import Case

SIZES = ((512, 8192, 768, 32), (512, 12288, 2304, 64))  # B, F, D, k
TINY = (4, 40, 6, 3)
FEW = ("random", "duplicated", "few_positive")  # inputs of the tiny form
WRONG = "pairs wrong"
WORSE = 2.0  # times plain torch's own error


def forms(k: int, level: float) -> list[Sparsify]:
    """Every budget with every score, and thresholds."""
    scores = [(signed, beta) for signed in (False, True) for beta in (0.0, 0.7)]
    budgets = [
        Choice(k, over, *score) for over in ("token", "batch", "feature") for score in scores
    ]
    return [*budgets, Threshold(level), Threshold(level, True, 0.4 * level)]


def correct(card: Card) -> Rows:
    """Pairs that differ from float64's, per input and form (0 is right), and what the values are
    off by."""
    for n_tokens, n_features, width, k in [TINY] if card.tiny else SIZES:
        for name in FEW if card.tiny else inputs.MAKERS:
            case = on(card, inputs.make(name, n_tokens, n_features, width))
            for form in forms(k, usual(case, k))[:: 5 if card.tiny else 1]:
                work = partial(beside_float64, case, form)
                yield f"{width}x{n_features} {name} {form}", attempt(work)
        yield f"{width}x{n_features} gradients", gradients(card, n_tokens, n_features, width, k)


def usual(case: Case, k: int) -> float:
    """A level that about k features of a token exceed, as float32 has it: every backend then
    compares with the same number."""
    pre_BF = case.x.double() @ case.W.double().T + case.b
    return float(pre_BF.topk(k).values[:, -1].median().clamp_min(0).float())


def beside_float64(case: Case, form: Sparsify) -> dict[str, float]:
    """The Triton backend's choice beside the reference's."""
    return compared(chosen("triton", case, form), exactly(case, form))


def on(card: Card, case: Case) -> Case:
    """The case on the card."""
    return Case(*(None if t is None else t.to(card.device) for t in case))


def chosen(name: str, case: Case, form: Sparsify) -> Code:
    """What a backend chooses."""
    boost = {"grad": case.grad, "W_dec": case.W_dec} if getattr(form, "beta", 0) else {}
    with kernels.backend(name):
        return kernels.choose(case.x, case.W, case.b, form, **boost)


def exactly(case: Case, form: Sparsify) -> Code:
    """The reference's choice in float64."""
    return chosen("reference", Case(*(None if t is None else t.double() for t in case)), form)


def compared(code: Code, right: Code) -> dict[str, float]:
    """How many pairs only one of them has, of how many, and the largest relative error of a value
    that both have (in units of float32's rounding, 2^-24)."""
    mine, theirs = (c.tokens * c.n_features + c.features for c in (code, right))
    shared, counts = torch.cat([mine, theirs]).unique(return_counts=True)
    both = shared[counts == 2]
    here, there = (
        c.values.double()[torch.searchsorted(places, both)]
        for c, places in ((code, mine), (right, theirs))
    )
    off = ((here - there).abs() / there.abs().clamp_min(2.0**-126)).max() if len(both) else 0.0
    return {
        WRONG: int((counts != 2).sum()),
        "of": len(theirs),
        "value error, roundings": round(float(off) * 2**24, 2),
    }


def gradients(card: Card, n_tokens: int, n_features: int, width: int, k: int) -> dict[str, float]:
    """Root mean square error of x_hat and of every gradient, as a multiple of plain torch's own in
    float32."""
    case = on(card, inputs.make("structured", n_tokens, n_features, width))
    ours, plain, exact = (
        _gradients(case, backend, dtype, k)
        for backend, dtype in (
            ("triton", torch.float32),
            ("reference", torch.float32),
            ("reference", torch.float64),
        )
    )
    names = ("x_hat", "dx", "dW_enc", "db_enc", "dW_dec")
    ratios = [
        float((mine - right).norm() / (theirs - right).norm().clamp_min(2.0**-24 * right.norm()))
        for mine, theirs, right in zip(ours, plain, exact, strict=True)
    ]
    rounded = {name: round(ratio, 3) for name, ratio in zip(names, ratios, strict=True)}
    return {**rounded, "value": max(ratios), "allowed": WORSE}


def _gradients(case: Case, name: str, dtype: torch.dtype, k: int) -> list[Tensor]:
    assert case.W_dec is not None
    x, W_enc, b_enc, W_dec = (
        t.to(dtype).requires_grad_() for t in (case.x, case.W, case.b, case.W_dec)
    )
    with kernels.backend(name):
        code = kernels.choose(x.detach(), W_enc.detach(), b_enc.detach(), Choice(k))
        x_hat = autograd.decode(autograd.encode(code, x, None, W_enc, b_enc), W_dec)
        loss = (x_hat - 1).square().sum()
        return [x_hat.detach(), *torch.autograd.grad(loss, [x, W_enc, b_enc, W_dec])]
