"""The five kernels on CPUs: screening in low precision, exact values, certified winners.

Shapes: B tokens, F features, D width, N pairs, K pairs per token.
"""

import numpy as np
import torch
from torch import Tensor

from saelab.code import Code
from saelab.kernels import reference, sparse
from saelab.kernels.candidates import collect, shrink
from saelab.kernels.exact import Sides, exhaust, fill, rescore
from saelab.kernels.jit import threads
from saelab.kernels.probe import screen_dtype
from saelab.kernels.screen import Problem, buffer, shift_of, tiles
from saelab.sparsify import Choice, Sparsify

_ROWS = 8192  # tokens screened at once
_FACTOR = 4  # a list's length, in multiples of what is kept of it when it is full


def _float32(**tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and (tensor.dtype != torch.float32 or tensor.device.type != "cpu"):
            raise ValueError(f"the cpu backend needs float32 on the cpu; {name} is {tensor.dtype} on {tensor.device}")


def sides_of(problem: Problem, by_feature: bool = False) -> Sides:
    none = torch.zeros(1, 1)
    x, W, b = problem.x, problem.W, problem.b.double()
    grad, W_dec = (none if tensor is None else tensor for tensor in (problem.grad, problem.W_dec))
    zeros = torch.zeros(len(x), dtype=torch.float64)
    pairs = [(x, W), (zeros, b), (grad, W_dec)]
    ordered = [tensor.numpy() for pair in pairs for tensor in (pair[::-1] if by_feature else pair)]
    return Sides(*ordered, problem.signed, problem.beta)


def _sample_size(keep: int, n_tiles: int) -> int:
    """How many of a sample tile's best entries let about `keep` or more of all pass: two standard deviations above the mean."""
    expected = keep / n_tiles
    return int(np.ceil(expected + 2.2 * np.sqrt(expected)))


class _Winners:
    """What queries have won so far: items and values in one place per query, and how many (-1: not certified)."""

    def __init__(self, budgets: np.ndarray) -> None:
        self.budgets = budgets
        self.places = np.cumsum(budgets) - budgets
        self.items = np.empty(budgets.sum(), np.int64)
        self.values = np.empty(budgets.sum(), np.float32)
        self.founds = np.full(len(budgets), -1)

    def take(self, queries: np.ndarray, other: "_Winners") -> np.ndarray:
        """Copy the certified ones of `other`, which are ours numbered `queries`; return those that still are not."""
        for i in np.flatnonzero(other.founds >= 0):
            ours, theirs, n = self.places[queries[i]], other.places[i], other.founds[i]
            self.items[ours : ours + n] = other.items[theirs : theirs + n]
            self.values[ours : ours + n] = other.values[theirs : theirs + n]
            self.founds[queries[i]] = n
        return queries[other.founds < 0]

    def exhaust(self, sides: Sides, queries: np.ndarray) -> None:
        exhaust(sides, queries, self.budgets, self.places, self.items, self.values, self.founds)


def _of_tokens(problem: Problem, tokens: np.ndarray) -> Problem:
    grad = None if problem.grad is None else problem.grad[tokens]
    return problem._replace(x=problem.x[tokens], grad=grad)


def _screen_tokens(problem: Problem, k: int, keep: int, dtype: torch.dtype, sample: bool) -> _Winners:
    """Winners of every token from one screening; `sample`: the first tile predicts thresholds."""
    n_tokens = len(problem.x)
    won = _Winners(np.full(n_tokens, k))
    starts = np.arange(n_tokens) * (_FACTOR * keep)
    lists = buffer("lists", (n_tokens * _FACTOR * keep,), torch.int64).numpy()
    counts, thetas = np.zeros(n_tokens, np.int64), np.zeros(n_tokens, np.int64)
    try:
        for tile in tiles(problem, dtype, strided=True):
            first = min(_sample_size(keep, tile.step), keep) if sample and tile.first == 0 else keep
            keeps = np.full(n_tokens, first)
            collect(tile.keys, tile.first, tile.step, starts, keeps, _FACTOR, counts, thetas, lists)
            if first < keep:
                shrink(starts, keeps, counts, thetas, lists)
    except OverflowError:
        return won
    shift = shift_of(dtype)
    sides = sides_of(problem)
    rescore(sides, starts, counts, thetas, lists, shift, won.budgets, won.places, won.items, won.values, won.founds)
    return won


def _over_tokens(problem: Problem, k: int, dtype: torch.dtype) -> Code:
    n_tokens, n_features = len(problem.x), len(problem.W)
    keep = min(2 * k + 64, n_features)
    won = _screen_tokens(problem, k, keep, dtype, True)
    failed = np.flatnonzero(won.founds < 0)
    if len(failed):
        again = _screen_tokens(_of_tokens(problem, failed), k, min(8 * keep, n_features), torch.float32, False)
        failed = won.take(failed, again)
        won.exhaust(sides_of(problem), failed)
    fill(won.founds, k, won.items, won.values)
    starts = torch.arange(0, n_tokens * k + 1, k)
    return Code(starts, torch.from_numpy(won.items), torch.from_numpy(won.values), n_features)


def choose(
    x_BD: Tensor,
    W_enc_FD: Tensor,
    b_enc_F: Tensor,
    sparsify: Sparsify,
    *,
    grad: Tensor | None = None,
    W_dec: Tensor | None = None,
    budget: Tensor | None = None,
    level: Tensor | None = None,
) -> Code:
    """The winning pairs of centred activations x_BD and their exact values; see `saelab.kernels.choose`."""
    if not isinstance(sparsify, Choice) or sparsify.over != "token":
        return reference.choose(x_BD, W_enc_FD, b_enc_F, sparsify, grad=grad, W_dec=W_dec, budget=budget, level=level)
    _float32(x=x_BD, W_enc=W_enc_FD, b_enc=b_enc_F, grad=grad, W_dec=W_dec)
    boost = (grad, W_dec) if sparsify.beta else (None, None)
    given = [t if t is None else t.detach().contiguous() for t in (x_BD, W_enc_FD, b_enc_F, *boost)]
    with threads():
        parts = []
        for first in range(0, max(len(x_BD), 1), _ROWS):
            rows = [t if t is None else t[first : first + _ROWS] for t in (given[0], given[3])]
            problem = Problem(rows[0], given[1], given[2], sparsify.signed, float(sparsify.beta), rows[1], given[4])
            parts.append(_over_tokens(problem, sparsify.k, screen_dtype()))
    return _joined(parts)


def _joined(parts: list[Code]) -> Code:
    if len(parts) == 1:
        return parts[0]
    before = np.cumsum([0, *(len(part.features) for part in parts)])
    starts = torch.cat([parts[0].starts[:1], *(p.starts[1:] + int(n) for p, n in zip(parts, before, strict=False))])
    return Code(
        starts, torch.cat([p.features for p in parts]), torch.cat([p.values for p in parts]), parts[0].n_features
    )


def by_feature(code: Code) -> tuple[Tensor, Tensor]:
    """`code.by_feature()` by a counting sort, remembered there."""
    if not code._by_feature:
        order_N, starts = sparse.sort_by_feature(code.features.numpy(), code.n_features)
        code._by_feature.update(order=torch.from_numpy(order_N), starts=torch.from_numpy(starts))
    return code.by_feature()


def _loops(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def spmm(code: Code, W_FD: Tensor) -> Tensor:
    """out[b] = sum over b's pairs of value x W[feature]: [B, D]."""
    _float32(values=code.values, W=W_FD)
    out_BD = torch.empty(code.n_tokens, W_FD.shape[1])
    with threads():
        sparse.spmm(*_loops(code.starts, code.features, code.values, W_FD), out_BD.numpy())
    return out_BD


def spmm_t(code: Code, G_BD: Tensor) -> Tensor:
    """out[f] = sum over the tokens that use f of value x G[token]: [F, D]."""
    _float32(values=code.values, G=G_BD)
    out_FD = torch.empty(code.n_features, G_BD.shape[1])
    with threads():
        order_N, starts = by_feature(code)
        tokens_N = sparse.tokens_of(code.starts.numpy())
        sparse.spmm_t(order_N.numpy(), starts.numpy(), tokens_N, *_loops(code.values, G_BD), out_FD.numpy())
    return out_FD


def sddmm(A_BD: Tensor, W_FD: Tensor, code: Code) -> Tensor:
    """A[token] . W[feature] at every pair: [N]."""
    _float32(A=A_BD, W=W_FD)
    out_N = torch.empty(len(code.features))
    with threads():
        sparse.sddmm(*_loops(code.starts, code.features, A_BD, W_FD), out_N.numpy())
    return out_N


def column_sums(code: Code) -> tuple[Tensor, Tensor]:
    """Per feature the sum of its values [F], and on how many tokens it fired (value != 0) [F] int64."""
    _float32(values=code.values)
    sums_F, fired_F = sparse.column_sums(*_loops(code.features, code.values), code.n_features)
    return torch.from_numpy(sums_F), torch.from_numpy(fired_F)
