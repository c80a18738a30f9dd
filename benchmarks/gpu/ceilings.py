"""What this card can do at most, and whether its products of half precision add up in float32."""

import torch

from benchmarks.gpu.card import Card, Rows

SUMMED = (2304, 8192, 16384)  # widths whose sums are probed
STOP = "adds up in float32"  # the row without which nothing after it means anything


def ceilings(card: Card) -> Rows:
    """Products, copies, and the probe of the accumulation."""
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        yield f"{name} product, TFLOP/s", _square(card, dtype)
    yield "copy, TB/s read and written", _copy(card)
    if card.is_cuda:
        host = torch.empty(1 << 28, dtype=torch.uint8)
        yield "host to device, pageable, GB/s", _from_the_host(card, host)
        yield "host to device, pinned, GB/s", _from_the_host(card, host.pin_memory())
    yield STOP, all(_adds_up(card, width) for width in SUMMED[: 1 if card.tiny else None])
    yield "the probe sees sums in half precision", not _adds_up(card, SUMMED[0], in_half=True)


def _square(card: Card, dtype: torch.dtype) -> float:
    n = 64 if card.tiny else 8192
    a, b = (
        torch.randn(n, n, device=card.device, generator=card.generator(seed)).to(dtype)
        for seed in (0, 1)
    )
    return round(2 * n**3 / card.milliseconds(lambda: a @ b.T) / 1e9, 3)


def _copy(card: Card) -> float:
    source = torch.empty(1 << (16 if card.tiny else 31), dtype=torch.uint8, device=card.device)
    there = torch.empty_like(source)
    ms = card.milliseconds(lambda: there.copy_(source))
    return round(2 * source.numel() / ms / 1e9, 4)


def _from_the_host(card: Card, host: torch.Tensor) -> float:
    there = torch.empty_like(host, device=card.device)
    ms = card.milliseconds(lambda: there.copy_(host, non_blocking=True))
    return round(host.numel() / ms / 1e6, 1)


def _adds_up(card: Card, width: int, in_half: bool = False) -> bool:
    """Whether 1 and width - 1 terms of 2^-11 add up to their sum: each alone would vanish beside a
    1 in half precision. in_half: the twin, which adds up in half precision."""
    w = torch.full((64, width), 2.0**-11, device=card.device, dtype=torch.float16)
    w[:, 0] = 1
    ones = torch.ones_like(w)
    total = _one_by_one(w) if in_half else _product(ones, w)
    return bool((total == torch.tensor(1 + (width - 1) * 2.0**-11).half().to(card.device)).all())


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a b^T of half-precision rows, no faster way of adding up allowed; in float32 on a CPU."""
    if a.device.type == "cpu":
        return (a.float() @ b.float().T).half()
    flags = torch.backends.cuda.matmul
    flags.allow_fp16_reduced_precision_reduction = False
    if hasattr(flags, "allow_fp16_accumulation"):
        flags.allow_fp16_accumulation = False
    return a @ b.T


def _one_by_one(w: torch.Tensor) -> torch.Tensor:
    """Its columns added up in half precision."""
    total = w[:, 0].clone()
    for column in range(1, w.shape[1]):
        total += w[:, column]
    return total
