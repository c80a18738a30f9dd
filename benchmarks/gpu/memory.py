"""How far a million features go in the card's memory."""

import gc
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.card import TINY, Card, Rows, attempt
from benchmarks.gpu.step import trained
from saelab import SAE, kernels
from saelab.sparsify import Choice
from training import updates
from training.benchmark import Shape
from training.config import Config

SIZES = ((2304, 1 << 18), (2304, 1 << 20), (4096, 1 << 19))
GIB = 2**30


def memory(card: Card) -> Rows:
    """Full steps with moments in float32 (fused) and in bfloat16 (through autograd), at growing
    sizes: milliseconds, peak, or why not."""
    shapes = [Shape(width, n_features, k=64, batch=8192) for width, n_features in SIZES]
    for shape in [TINY] if card.tiny else shapes:
        for moments in (torch.float32, torch.bfloat16):
            name = str(moments).removeprefix("torch.")
            label = f"D={shape.width} F={shape.features} moments {name}"
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
    make = trained if moments == torch.float32 else through_autograd
    mine = make(card, shape, Choice(shape.k))
    held = round(torch.cuda.memory_allocated() / GIB, 2) if card.is_cuda else None
    return {"ms": card.milliseconds(mine.full, repeats=3, warm=2), "held before, GiB": held}


class ThroughAutograd(NamedTuple):
    """The trainer's step with bfloat16 moments, which no fused one has; x [B, D]."""

    optimiser: updates.Updates
    x: Tensor
    number: list[int]

    def full(self) -> None:
        """One step."""
        self.number[0] += 1
        with kernels.backend("triton"):
            self.optimiser.forward(updates.Batch(self.x, self.x), float(self.x.shape[1]))
            self.optimiser.update(1e-4, self.number[0], [None])


def through_autograd(card: Card, shape: Shape, form: Choice) -> ThroughAutograd:
    """That step of random rows."""
    sae = SAE(shape.width, form.k, form).to(card.device)  # its rows are made on the card
    W_enc = card.rows(shape.features, shape.width, 0)
    weights = {"W_enc": W_enc, "W_dec": W_enc.clone(), "b_enc": W_enc.new_zeros(shape.features)}
    for name, tensor in weights.items():
        setattr(sae, name, torch.nn.Parameter(tensor))
    config = Config(features=shape.features, k=shape.k, moments="bfloat16", lr=1e-4)
    return ThroughAutograd(updates.Autograd(config, sae), card.tokens(shape, W_enc), [0])
