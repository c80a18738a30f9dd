"""Inputs that kernels get wrong: ties, near-ties, large biases, large rows, constants, all winners
in one place.

Shapes: B tokens, F features, D width.
"""

import torch
from torch import Tensor

from tests.kernels.truth import Case


def _rows(n: int, width: int, seed: int) -> Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def _unit(n: int, width: int, seed: int) -> Tensor:
    return torch.nn.functional.normalize(_rows(n, width, seed), dim=1)


def _random(B: int, F: int, D: int) -> Case:
    return Case(_rows(B, D, 0), _unit(F, D, 1), 0.1 * _rows(1, F, 2)[0])


def _structured(B: int, F: int, D: int) -> Case:
    """Tokens are sums of a few rows, with a mean, and row norms from 0.1 to 10: what training
    converges to."""
    W = _unit(F, D, 1)
    picks = torch.randint(0, F, (B, 8), generator=torch.Generator().manual_seed(3)) ** 2 // F
    weights = torch.rand(B, 8, 1, generator=torch.Generator().manual_seed(4))
    x = (W[picks] * weights).sum(1) + 0.05 * _rows(B, D, 5) + 0.3
    return Case(
        x * torch.exp(_rows(B, 1, 6)),
        W * torch.exp(0.5 * _rows(F, 1, 7)),
        _rows(1, F, 8)[0].abs() * -0.05,
    )


def _duplicated(B: int, F: int, D: int) -> Case:
    """Whole numbers, so that sums are exact, and every feature twice, half a dictionary apart."""
    half = torch.randint(-4, 5, (F - F // 2, D), generator=torch.Generator().manual_seed(1)).float()
    x = torch.randint(-4, 5, (B, D), generator=torch.Generator().manual_seed(0)).float()
    return Case(x, torch.cat([half, half])[:F].contiguous(), torch.zeros(F))


def _negative(B: int, F: int, D: int) -> Case:
    return _random(B, F, D)._replace(b=torch.full((F,), -100.0))


def _few_positive(B: int, F: int, D: int) -> Case:
    """Only two features can be positive, the last and one in the middle."""
    b = torch.full((F,), -100.0)
    b[[F // 2, -1]] = 20.0
    return _random(B, F, D)._replace(b=b)


def _one_tile(B: int, F: int, D: int) -> Case:
    """The winners are neighbours."""
    case = _random(B, F, D)
    case.b[F // 3 : F // 3 + 40] += 10.0
    return case


def _one_stride(B: int, F: int, D: int) -> Case:
    """The winners are all in the sample that predicts thresholds, whatever the number of tiles up
    to 6."""
    case = _random(B, F, D)
    case.b[::60] += 10.0
    return case


def _near_ties(B: int, F: int, D: int) -> Case:
    """Nine of ten features win, by amounts that bfloat16 cannot tell apart."""
    case = _random(B, F, D)
    direction = torch.nn.functional.normalize(torch.ones(D), dim=0)
    case.W[: F * 9 // 10] = direction + 1e-5 * _rows(F * 9 // 10, D, 8)
    return case._replace(x=case.x + 30 * direction)


def _one_step_apart(B: int, F: int, D: int) -> Case:
    """Pre-activations are neighbouring bfloat16 numbers, repeated."""
    x, W = torch.zeros(B, D), torch.zeros(F, D)
    x[:, 0] = 1
    W[:, 0] = (1 + torch.arange(F) % 128 / 128).bfloat16().float()
    return Case(x, W, torch.zeros(F))


def _held_off(B: int, F: int, D: int) -> Case:
    """Every 16th feature has a row 50 times as long, and a bias that keeps it from winning."""
    case = _random(B, F, D)
    case.W[::16] *= 50
    case.b[::16] = -(case.x @ case.W[::16].T).amax(0) + 0.5
    return case


def _large_bias(B: int, F: int, D: int) -> Case:
    """x . w near 1001.9, b near -1000: what is left is in the last bits."""
    case = _random(B, F, D)
    direction = torch.nn.functional.normalize(torch.ones(D), dim=0)
    W = direction + 1e-3 * _rows(F, D, 9)
    b = -torch.full((F,), 1000.1) + 0.2 * torch.rand(F, generator=torch.Generator().manual_seed(1))
    return Case(1000 * direction + 0.1 * case.x, W, b)


def _constant(B: int, F: int, D: int) -> Case:
    return Case(torch.ones(B, D), torch.full((F, D), 0.5), torch.zeros(F))


def _zero(B: int, F: int, D: int) -> Case:
    """Tokens of zeros between others, rows of zeros, no bias."""
    case = _random(B, F, D)
    case.x[::2] = 0
    case.W[::3] = 0
    return case._replace(b=torch.zeros(F))


def _worst_rounding(B: int, F: int, D: int) -> Case:
    """One feature whose bfloat16 error is the largest possible, and many that seem better and are
    not (see tests)."""
    odd = (1 + 2.0**-8) / 2
    W = torch.full((F, D), 0.5)
    W[:, : D * 45 // 100] = 0.5 * (1 + 2.0**-7)
    W[F // 2] = odd
    return Case(torch.full((B, D), odd), W, torch.zeros(F))


def _tiny(B: int, F: int, D: int) -> Case:
    """Numbers near the smallest normal float32, whose squares vanish."""
    case = _random(B, F, D)
    return Case(case.x * 2.0**-70, case.W * 2.0**-50, case.b * 2.0**-120)


def _huge(B: int, F: int, D: int) -> Case:
    """Products beyond bfloat16's certified range."""
    case = _random(B, F, D)
    return Case(case.x * 2.0**72, case.W * 2.0**52, case.b * 2.0**124)


def _everyone(B: int, F: int, D: int) -> Case:
    """One feature that every token chooses."""
    case = _random(B, F, D)
    case.b[F // 2] = 50.0
    return case


MAKERS = {
    name.removeprefix("_"): make
    for name, make in list(globals().items())
    if name.startswith("_") and callable(make) and name not in ("_rows", "_unit")
}


def make(name: str, B: int = 24, F: int = 331, D: int = 37) -> Case:
    """The input of this name, with a gradient and decoder rows for boosted scores."""
    case = MAKERS[name](B, F, D)
    return Case(*(t.contiguous() for t in case[:3]), _rows(B, D, 10), _unit(F, D, 11))
