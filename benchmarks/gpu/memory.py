"""How far a million features go in the card's memory."""

import gc
from functools import partial

import torch

from benchmarks.gpu.card import Card, Rows, attempt
from benchmarks.gpu.step import trained
from saelab.sparsify import Choice
from training.benchmark import Shape

SIZES = ((2304, 1 << 18), (2304, 1 << 20), (4096, 1 << 19))
GIB = 2**30


def memory(card: Card) -> Rows:
    """Full steps with moments in float32 and in bfloat16, at growing sizes: milliseconds, peak, or
    why not."""
    sizes = SIZES if card.is_cuda else ((16, 128),)
    for width, n_features in sizes:
        for moments in (torch.float32, torch.bfloat16):
            shape = Shape(width, n_features, k=64 if card.is_cuda else 4, batch=8192)
            if card.tiny:
                shape = shape._replace(batch=16)
            label = f"D={width} F={n_features} moments {str(moments).removeprefix('torch.')}"
            yield label, _step(card, shape, moments)
            gc.collect()
            if card.is_cuda:
                torch.cuda.empty_cache()


def _step(card: Card, shape: Shape, moments: torch.dtype) -> dict[str, object]:
    if card.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    row = attempt(partial(_timed, card, shape, moments))
    if card.is_cuda:
        row["peak, GiB"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
    return row


def _timed(card: Card, shape: Shape, moments: torch.dtype) -> dict[str, object]:
    mine = trained(card, shape, Choice(shape.k), moments)
    held = round(torch.cuda.memory_allocated() / GIB, 2) if card.is_cuda else None
    return {"ms": card.milliseconds(mine.full, repeats=2, warm=1), "held before, GiB": held}
