"""What the code of a token must not depend on: the other tokens of its batch, and the gradient,
which knows the next token.

Shapes: B tokens, D width, F features.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from saelab.code import Code
from saelab.sae import SAE

Encode = Callable[[Tensor], Code]


@torch.no_grad()
def batch_dependence(encode: Encode, x_BD: Tensor) -> float:
    """Share of tokens whose code, features and values bit for bit, is another one alone or in
    reversed order than in the batch.

    0 for every inference form; a batch budget (BatchTopK in its training form) is above 0.
    """
    together = encode(x_BD).to_dense()
    alone = torch.cat([encode(x_D[None]).to_dense() for x_D in x_BD])
    reversed_ = encode(x_BD.flip(0)).to_dense().flip(0)
    return float(((alone != together) | (reversed_ != together)).any(1).float().mean())


@torch.no_grad()
def gradient_dependence(sae: SAE, x_BD: Tensor, grad_BD: Tensor) -> float:
    """Share of tokens whose code changes when each one is given its neighbour's gradient [B, D]
    instead of its own.

    0 for every inference form. A gradient is computed from the next token: a code that depends on
    it leaks the label.
    """
    own, other = (sae.encode(x_BD, grad).to_dense() for grad in (grad_BD, grad_BD.roll(1, 0)))
    return float((own != other).any(1).float().mean())
