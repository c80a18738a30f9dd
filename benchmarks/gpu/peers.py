"""The same step as others do it, in the same process on the same tokens: dense torch, compiled, and
what of EleutherAI's sparsify and SAELens can be imported here.

Shapes: B tokens, F features, D width.
"""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.card import Card, Rows, attempt
from training.benchmark import DENSE_LR, Shape

Step = Callable[[], None]
Make = Callable[[Card, Shape, Tensor, Tensor], Step]


def peers(card: Card) -> Rows:
    """Milliseconds of a step and its peak memory by peer; our own full step stands in `step`."""
    shape = list(card.shapes().values())[-1]
    for name, make in PEERS.items():
        yield name, attempt(partial(_price, card, shape, make))
        gc.collect()  # its memory is the next peer's


def _price(card: Card, shape: Shape, make: Make) -> dict[str, Any]:
    W_FD = card.rows(shape.features, shape.width, 0)
    work = make(card, shape, card.tokens(shape, W_FD), W_FD)
    return {"ms": card.milliseconds(work, repeats=5), "peak of a step, bytes": card.peak(work)}


def dense(card: Card, shape: Shape, x_BD: Tensor, W_FD: Tensor, bf16: bool) -> Step:
    """TopK over [B, F], compiled, torch's fused Adam, unit decoder rows. bf16: products under
    autocast; else in TF32."""
    W_enc, W_dec = (torch.nn.Parameter(W_FD.clone()) for _ in range(2))
    b_enc = torch.nn.Parameter(x_BD.new_zeros(shape.features))
    b_dec = torch.nn.Parameter(x_BD.new_zeros(shape.width))
    adam = torch.optim.Adam([W_enc, b_enc, W_dec, b_dec], lr=DENSE_LR, fused=True)

    def loss() -> Tensor:
        pre_BF = (x_BD - b_dec) @ W_enc.T + b_enc
        best = pre_BF.relu().topk(shape.k, sorted=False)
        codes_BF = torch.zeros_like(pre_BF).scatter(1, best.indices, best.values)
        return (codes_BF @ W_dec + b_dec - x_BD).float().square().sum() / shape.batch

    compiled = loss if card.tiny else torch.compile(loss)

    def work() -> None:
        torch.set_float32_matmul_precision("high" if not bf16 and card.is_cuda else "highest")
        with torch.autocast(x_BD.device.type, torch.bfloat16, enabled=bf16):
            value = compiled()
        adam.zero_grad()
        value.backward()
        adam.step()
        with torch.no_grad():
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))
        torch.set_float32_matmul_precision("highest")

    return work


def sparsify(card: Card, shape: Shape, x_BD: Tensor, W_FD: Tensor) -> Step:
    """EleutherAI's, under autocast as its trainer runs it, with torch's fused Adam."""
    from sparsify import SparseCoder, SparseCoderConfig  # type: ignore[import-not-found]

    config = SparseCoderConfig(num_latents=shape.features, k=shape.k)
    coder = SparseCoder(shape.width, config, dtype=torch.float32, device=card.device)
    adam = torch.optim.Adam(coder.parameters(), lr=DENSE_LR, fused=True)

    def work() -> None:
        with torch.autocast(x_BD.device.type, torch.bfloat16):
            value = coder(x_BD, dead_mask=None).fvu
        adam.zero_grad()
        value.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        coder.set_decoder_norm_to_unit_norm()

    return work


def sae_lens(card: Card, shape: Shape, x_BD: Tensor, W_FD: Tensor) -> Step:
    """SAELens's TopK, under autocast."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig  # type: ignore[import-not-found]
    from sae_lens.saes.sae import TrainStepInput  # type: ignore[import-not-found]

    config: Any = TopKTrainingSAEConfig(
        d_in=shape.width, d_sae=shape.features, k=shape.k, device=card.device
    )
    sae = TopKTrainingSAE(config)
    adam = torch.optim.Adam(sae.parameters(), lr=DENSE_LR, fused=True)
    given = TrainStepInput(
        sae_in=x_BD,
        coefficients={},
        dead_neuron_mask=None,
        n_training_steps=0,
        is_logging_step=False,
    )

    def work() -> None:
        with torch.autocast(x_BD.device.type, torch.bfloat16):
            loss = sae.training_forward_pass(given).loss
        adam.zero_grad()
        loss.backward()
        adam.step()

    return work


PEERS: dict[str, Make] = {
    "dense torch, compiled, bf16 autocast": lambda *given: dense(*given, bf16=True),
    "dense torch, compiled, TF32": lambda *given: dense(*given, bf16=False),
    "eai-sparsify, bf16 autocast": sparsify,
    "SAELens, bf16 autocast": sae_lens,
}
