"""Attempts to make the nonlinear error smaller, each beside what it started from: by pursuit in the
encoder's place or by maps from earlier layers' reconstructions.

Engels, Smith and Tegmark (arXiv 2410.14670). Shapes: N tokens, D width, E width of the earlier
layer.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from saelab import kernels
from saelab.analysis.dark_matter import decomposition, linear
from saelab.dictionaries.pursuit import pursue
from saelab.sae import SAE
from saelab.statistics import Estimate
from saelab.statistics.sums import of_tokens
from saelab.token_norm import check_additive

PIECE = 8192  # tokens encoded at a time


class Reduction(NamedTuple):
    """Squared length of the nonlinear error per scored token [N], before and after."""

    before: Tensor
    after: Tensor

    def share(self, owners: Tensor, seed: int = 0) -> Estimate:
        """1 - sum(after) / sum(before) with its 95% interval over the documents `owners` [N]."""
        columns = self._asdict()
        return of_tokens(owners, columns, lambda sums: 1 - sums["after"] / sums["before"], seed)


@torch.no_grad()
def reconstruct(sae: SAE, x: Tensor) -> Tensor:
    """x_hat [N, D] by the encoder, in pieces, on the SAE's device."""
    return torch.cat([sae(piece.to(sae.W_enc)) for piece in x.split(PIECE)])


@torch.no_grad()
def pursued(sae: SAE, x: Tensor, method: str) -> Tensor:
    """x_hat [N, D] by pursuit over the SAE's decoder, with as many steps for each token as its
    encoder fires features."""
    check_additive(sae.token_norm)
    pieces = []
    for piece in x.split(PIECE):
        code = sae.encode(piece)
        fired = torch.bincount(code.tokens[code.values != 0], minlength=len(piece))
        pursuit = pursue(piece - sae.b_dec, sae.W_dec, fired, method)
        pieces.append(kernels.spmm(pursuit.code, sae.W_dec) + sae.b_dec)
    return torch.cat(pieces)


def by_pursuit(sae: SAE, fitting: Tensor, scored: Tensor, method: str = "gradient") -> Reduction:
    """What pursuit takes off the nonlinear error. fitting, scored [N, D]: tokens the linear maps
    are fitted and measured on.

    The linear map is fitted to each error of its own. Raises UsageError for too few tokens or an
    unknown method.
    """
    fitting, scored = fitting.to(sae.W_enc), scored.to(sae.W_enc)
    squares = []
    for x_hat in (reconstruct, lambda sae, x: pursued(sae, x, method)):
        map = decomposition.fit(fitting, x_hat(sae, fitting))
        squares.append(
            decomposition.decompose(scored, x_hat(sae, scored), map).nonlinear.square().sum(1)
        )
    return Reduction(*squares)


def by_earlier(
    sae: SAE, fitting: tuple[Tensor, Tensor], scored: tuple[Tensor, Tensor]
) -> Reduction:
    """What a linear map from z [N, E], such as an earlier layer's SAE reconstruction, takes off the
    nonlinear error of x [N, D].

    fitting, scored: pairs (x, z) of the same tokens. Raises UsageError for too few tokens.
    """
    fitting, scored = ((x.to(sae.W_enc), z.to(sae.W_enc)) for x, z in (fitting, scored))
    x_hats = [reconstruct(sae, x) for x, _ in (fitting, scored)]
    map = decomposition.fit(fitting[0], x_hats[0])
    rests = [
        decomposition.decompose(x, x_hat, map).nonlinear
        for (x, _), x_hat in zip((fitting, scored), x_hats, strict=True)
    ]
    told = linear.fit(fitting[1], rests[0])(scored[1])
    return Reduction(rests[1].square().sum(1), (rests[1] - told).square().sum(1))
