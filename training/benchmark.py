"""What the price of a training step is measured with: one input for all, the yardsticks, and a
clock.

It needs torch alone, so that a peer's environment can use it. Shapes: B tokens, F features, D
width.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

Step = Callable[[], None]
DENSE_LR = 1e-4


class Shape(NamedTuple):
    """D, F, pairs per token, B."""

    width: int = 768
    features: int = 24576
    k: int = 32
    batch: int = 2048


class Price(NamedTuple):
    """Milliseconds of a step: median, quartiles, least; and the median of its ratio to the product
    run just before it."""

    median: float
    low: float
    high: float
    least: float
    products: float


def tokens(shape: Shape, device: str = "cpu") -> Tensor:
    """x [B, D], Gaussian, the same in every process."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(shape.batch, shape.width, generator=draw).to(device)


def rows(shape: Shape, device: str = "cpu") -> Tensor:
    """Unit rows [F, D]."""
    draw = torch.Generator().manual_seed(1)
    rows_FD = torch.randn(shape.features, shape.width, generator=draw)
    return torch.nn.functional.normalize(rows_FD, dim=1).to(device)


def product_in(dtype: torch.dtype, shape: Shape, device: str = "cpu") -> partial[Tensor]:
    """One encoder product in this dtype, into memory that is used again."""
    x_BD, rows_FD = tokens(shape, device).to(dtype), rows(shape, device).to(dtype)
    return partial(torch.mm, x_BD, rows_FD.T, out=x_BD.new_empty(shape.batch, shape.features))


def product(shape: Shape, device: str = "cpu") -> partial[Tensor]:
    """The yardstick: the encoder product in whichever of float32 and bfloat16 is faster here."""
    both = [product_in(dtype, shape, device) for dtype in (torch.float32, torch.bfloat16)]
    return min(both, key=lambda one: statistics.median(milliseconds(one) for _ in range(5)))


def dense(shape: Shape, device: str = "cpu") -> Step:
    """Plain torch: TopK over [B, F], dense products, fused Adam, unit decoder rows."""
    x_BD = tokens(shape, device)
    W_enc, W_dec = (torch.nn.Parameter(rows(shape, device)) for _ in range(2))
    b_enc, b_dec = (
        torch.nn.Parameter(torch.zeros(size, device=device))
        for size in (shape.features, shape.width)
    )
    optimiser = torch.optim.Adam([W_enc, b_enc, W_dec, b_dec], lr=DENSE_LR, fused=True)

    def step() -> None:
        pre_BF = (x_BD - b_dec) @ W_enc.T + b_enc
        best = pre_BF.relu().topk(shape.k)
        codes_BF = torch.zeros_like(pre_BF).scatter(1, best.indices, best.values)
        loss = (codes_BF @ W_dec + b_dec - x_BD).square().sum() / shape.batch
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))

    return step


def milliseconds(step: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    step()
    if torch.cuda.is_initialized():  # a card goes on with it after the call has returned
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def measure(make: Callable[[], Step], yardstick: Callable[[], object], repeats: int) -> Price:
    """The price of a step over `repeats` pairs (product, step) after two that are not counted.

    Pairs, because a machine that others use too changes its pace by the minute.
    """
    step = make()
    pairs = [(milliseconds(yardstick), milliseconds(step)) for _ in range(repeats + 2)][2:]
    times = [mine for _, mine in pairs]
    low, median, high = statistics.quantiles(times, n=4)
    ratio = statistics.median(mine / theirs for theirs, mine in pairs)
    return Price(
        round(median, 1), round(low, 1), round(high, 1), round(min(times), 1), round(ratio, 2)
    )
