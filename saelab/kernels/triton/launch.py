"""Launching Triton programs: at this machine's block sizes, on the tensors' own card, with products
that add up in float32.

Shapes: B tokens, F features, D width, N pairs.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from saelab.kernels.triton import exact, sizes

_programs: Any = exact  # compiled when launched, with plain numbers for compile-time constants


def on_card_of(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Within the block programs are launched on the tensor's card, whichever the current one is."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


@contextlib.contextmanager
def true_products() -> Iterator[None]:
    """Within the block products of half-precision rows add up in float32, those of float32 rows do
    not round them, whatever the user has allowed."""
    flags, strict = torch.backends.cuda.matmul, {"allow_fp16_reduced_precision_reduction": False}
    strict |= {"allow_fp16_accumulation": False, "fp32_precision": "ieee"}
    strict = {name: value for name, value in strict.items() if hasattr(flags, name)}
    before = {name: getattr(flags, name) for name in strict}
    try:
        for name, value in strict.items():
            setattr(flags, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(flags, name, value)


def product(q: Tensor, i: Tensor, out: Tensor) -> Tensor:
    """q i^T of rounded rows, into out."""
    if q.is_cuda:
        return torch.mm(q, i.T, out=out)
    return out.copy_(q.float() @ i.float().T)  # where Triton is interpreted


@functools.cache
def screen_dtype(device: torch.device) -> torch.dtype:
    """float16 where this card's products of it add up in float32, else float32."""
    with true_products():
        return torch.float16 if all(_adds_up(device, k) for k in (2304, 16384)) else torch.float32


def _adds_up(device: torch.device, width: int) -> bool:
    """Whether 1 and width - 1 times 2^-11 add up to their sum: in half precision each of them would
    vanish beside 1."""
    w = torch.full((64, width), 2.0**-11, device=device, dtype=torch.float16)
    w[:, 0] = 1
    out = torch.empty(64, 64, device=device, dtype=torch.float16)
    total = product(torch.ones_like(w), w, out)
    return bool((total == torch.tensor(1 + (width - 1) * 2.0**-11).half().to(device)).all())


def dots(
    A: Tensor, W: Tensor, tokens: Tensor, features: Tensor, bias: Tensor | None = None
) -> Tensor:
    """A[token] . W[feature], plus bias[feature], of pairs [N], in float64; 0 where the feature is
    -1. The one place where values are computed: their bits depend on the two rows alone."""
    tokens, features = tokens.contiguous(), features.contiguous()
    out_N = torch.empty(len(tokens), dtype=torch.float64, device=A.device)
    s = sizes.here()
    block = min(s.block, sizes.power(A.shape[1]))
    if len(tokens):
        _programs.exact_dots[(-(-len(tokens) // s.pairs),)](
            A, W, W if bias is None else bias, tokens, features, out_N, len(tokens), A.shape[1],
            bias is not None, s.pairs, block, **s.launch(4),
        )  # fmt: skip
    return out_N
