"""The sparse kernels behind one door: what comes in is checked, the tensor's device picks the
backend.

Shapes: B tokens, F features, D width, N pairs.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.code import Code
from saelab.kernels import halves
from saelab.kernels.checks import check_finite, check_together
from saelab.sparsify import Choice, Own, Sparsify


class Home(NamedTuple):
    """A backend: where it stands and what it takes."""

    module: str
    """has the reference's functions, with its arguments; imported when it is used"""
    devices: tuple[str, ...] = ()
    """the types of device whose float32 tensors come here; all other tensors, to the reference"""
    checks_weights: bool = False
    """whether its `choose` refuses weights that are not finite (the cpu's, by its norms of rows)"""


HOMES = {
    "reference": Home("saelab.kernels.reference"),
    "cpu": Home("saelab.kernels.cpu.backend", ("cpu",), checks_weights=True),
    "triton": Home("saelab.kernels.triton.backend", ("cuda",)),
}
_forced: ContextVar[str | None] = ContextVar("backend", default=None)


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Use this backend inside the block, whatever the tensors' device. Raises ValueError for an
    unknown name.

    >>> with backend("reference"):
    ...     x_hat_BD, code = sae.reconstruct(x_BD)
    """
    if name not in HOMES:
        raise ValueError(f"no backend {name!r}; there are {', '.join(HOMES)}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def _home(tensor: Tensor, sparsify: Sparsify | None = None) -> Home:
    if isinstance(sparsify, Own):  # it takes all of [B, F], which the reference alone holds
        return HOMES["reference"]
    if name := _forced.get():
        return HOMES[name]
    fits = (home for home in HOMES.values() if tensor.device.type in home.devices)
    return next(fits, HOMES["reference"]) if tensor.dtype == torch.float32 else HOMES["reference"]


def _backend(tensor: Tensor, sparsify: Sparsify | None = None) -> ModuleType:
    home = _home(tensor, sparsify)
    try:
        return importlib.import_module(home.module)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("saelab"):
            raise
        message = f"{home.module} needs {error.name}, which is not installed: pip install"
        raise ModuleNotFoundError(f"{message} {error.name}", name=error.name) from None


def check_shapes(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    sparsify: Sparsify,
    grad: Tensor | None,
    W_dec: Tensor | None,
    budget: Tensor | None,
) -> None:
    """Raise ValueError for shapes, devices and budgets that do not fit."""
    check_together(x=x, W_enc=W_enc, b_enc=b_enc, grad=grad, W_dec=W_dec)
    n_features, width = W_enc.shape
    if x.ndim != 2 or x.shape[1] != width:
        raise ValueError(
            f"x has shape {list(x.shape)}, W_enc {list(W_enc.shape)}: "
            "their last dimensions must agree"
        )
    if b_enc.shape != (n_features,):
        raise ValueError(f"b_enc has shape {list(b_enc.shape)}, must be [{n_features}]")
    if isinstance(sparsify, Choice):
        if sparsify.k > n_features:
            raise ValueError(f"k={sparsify.k} is more than n_features={n_features}")
        if sparsify.beta and (grad is None or W_dec is None):
            raise ValueError(
                f"beta={sparsify.beta} needs the gradient: capture with gradients, or use beta 0"
            )
        if sparsify.over == "feature":
            equal_share = -(-sparsify.k * len(x) // n_features)
            most = equal_share if budget is None else int(budget.max())
            if most > len(x):
                raise ValueError(
                    f"a feature's budget of {most} pairs is more than the {len(x)} tokens "
                    "of the batch"
                )


def check(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    sparsify: Sparsify,
    grad: Tensor | None,
    W_dec: Tensor | None,
    budget: Tensor | None,
) -> None:
    """Raise what `check_shapes` does, and FloatingPointError for x or b_enc that are not finite."""
    check_shapes(x, W_enc, b_enc, sparsify, grad, W_dec, budget)
    check_finite("x", x)
    check_finite("b_enc", b_enc)


@torch.no_grad()
def choose(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    sparsify: Sparsify,
    *,
    grad: Tensor | None = None,
    W_dec: Tensor | None = None,
    budget: Tensor | None = None,
    level: Tensor | None = None,
) -> Code:
    """The pairs that `sparsify` keeps, and their exact values, never materialising [B, F] (but in
    the reference). Half-precision weights become float32 a piece at a time.

    x [B, D] comes centred (x - b_dec); W_enc [F, D], b_enc [F]; pre = x W_enc^T + b_enc. A token
    budget yields exactly k pairs per token, filled up with value 0 at the lowest features where
    fewer are positive; batch and feature budgets yield pairs with non-zero values only. Ties go to
    the lowest feature; over a batch to the lowest token first. grad [B, D], W_dec [F, D]: for
    scores with beta > 0. budget [F] int64: pairs per feature (default: equal shares of k x B).
    level [F]: levels that replace the threshold's own. No gradient flows through choosing. Raises
    ValueError for shapes and budgets that do not fit, FloatingPointError for non-finite input.

    >>> code = choose(x - sae.b_dec, sae.W_enc, sae.b_enc, Choice(k=32))
    >>> x_hat = spmm(code, sae.W_dec) + sae.b_dec
    """
    check(x, W_enc, b_enc, sparsify, grad, W_dec, budget)
    if not len(x):
        none = x.new_zeros(0, dtype=torch.int64)
        return Code(x.new_zeros(1, dtype=torch.int64), none, x.new_zeros(0), len(W_enc))
    if halves.takes(W_enc, sparsify) and not _forced.get():
        return halves.choose(choose, x, W_enc, b_enc, sparsify, level)  # type: ignore[arg-type]
    if not _home(x, sparsify).checks_weights:
        check_finite("W_enc", W_enc)
    return _backend(x, sparsify).choose(
        x, W_enc, b_enc, sparsify, grad=grad, W_dec=W_dec, budget=budget, level=level
    )


@torch.no_grad()
def scores(
    code: Code,
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    choice: Choice,
    *,
    grad: Tensor | None = None,
    W_dec: Tensor | None = None,
) -> Tensor:
    """The scores [N] in float64 by which `choose` has ranked the pairs of its code, of the same
    arguments; 0 for a pair that only fills a token's budget. Choices over parts of the features or
    of the tokens are merged by them.

    >>> code = choose(x_BD, W_enc[:half], b_enc[:half], Choice(k=32))
    >>> score_N = scores(code, x_BD, W_enc[:half], b_enc[:half], Choice(k=32))
    """
    return _backend(x).scores(code, x, W_enc, b_enc, choice, grad=grad, W_dec=W_dec)


@torch.no_grad()
def spmm(code: Code, W: Tensor) -> Tensor:
    """Decode: out[b] = sum over b's pairs of value x W[feature]. W [F, D] -> [B, D].

    >>> code = sae.encode(x_BD)
    >>> x_hat_BD = spmm(code, sae.W_dec) + sae.b_dec
    """
    check_together(code=code.values, W=W)
    if W.dtype in halves.DTYPES and not _forced.get():
        return halves.spmm(code, W)
    return _backend(W).spmm(code, W)


@torch.no_grad()
def spmm_t(code: Code, G: Tensor) -> Tensor:
    """Weight gradient: out[f] = sum over the tokens that use f of value x G[token]. G [B, D] -> [F,
    D].

    >>> G_BD = 2 * (x_hat_BD - x_BD)
    >>> dW_dec_FD = spmm_t(code, G_BD)
    """
    check_together(code=code.values, G=G)
    return _backend(G).spmm_t(code, G)


@torch.no_grad()
def sddmm(A: Tensor, W: Tensor, code: Code) -> Tensor:
    """A[token] . W[feature] at every pair. A [B, D], W [F, D] -> [N].

    >>> G_BD = 2 * (x_hat_BD - x_BD)
    >>> dvalues_N = sddmm(G_BD, sae.W_dec, code)
    """
    check_together(A=A, W=W, code=code.values)
    return _backend(A).sddmm(A, W, code)


@torch.no_grad()
def column_sums(code: Code) -> tuple[Tensor, Tensor]:
    """Per feature the sum of its values [F] and the number of tokens it fired on (value != 0) [F]
    int64.

    >>> sums_F, fired_F = column_sums(sae.encode(x_BD))
    >>> density_F = fired_F / len(x_BD)
    """
    return _backend(code.values).column_sums(code)
