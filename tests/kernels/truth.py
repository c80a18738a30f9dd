"""What the kernels must compute, worked out another way: numpy, float64, one token or feature at a
time.

Shapes: B tokens, F features, D width, N pairs.
"""

import itertools
from typing import NamedTuple

import numpy as np
from torch import Tensor

from saelab import Code
from saelab.kernels.reference import equal_budget
from saelab.sparsify import Choice, Sparsify


class Case(NamedTuple):
    """Arguments of `choose`: x [B, D], W [F, D], b [F], and for boosted scores grad [B, E], W_dec
    [F, E]."""

    x: Tensor
    W: Tensor
    b: Tensor
    grad: Tensor | None = None
    W_dec: Tensor | None = None


class Pair(NamedTuple):
    token: int
    feature: int


def scores(case: Case, sparsify: Sparsify) -> tuple[np.ndarray, np.ndarray]:
    """(pre-activations, scores) [B, F] in float64."""
    x, W, b = (tensor.numpy().astype(np.float64) for tensor in case[:3])
    pre = np.stack([W @ row for row in x]) + b
    score = np.abs(pre) if sparsify.signed else np.maximum(pre, 0)
    if isinstance(sparsify, Choice) and sparsify.beta:
        grad, W_dec = case.grad.numpy().astype(np.float64), case.W_dec.numpy().astype(np.float64)
        score = score * (1 + sparsify.beta * np.abs(np.stack([W_dec @ row for row in grad])))
    return pre, score


def _best(score: np.ndarray, budget: int) -> list[int]:
    """The positions of the largest entries, the earlier one of equals."""
    return sorted(range(len(score)), key=lambda i: (-score[i], i))[:budget]


def pairs(
    case: Case, sparsify: Sparsify, budget: Tensor | None = None, level: Tensor | None = None
) -> dict[Pair, float]:
    """Every pair that must be kept, with its value in float64."""
    pre, score = scores(case, sparsify)
    n_tokens, n_features = pre.shape
    value = pre if sparsify.signed else np.maximum(pre, 0)
    if not isinstance(sparsify, Choice):
        given = np.full(n_features, sparsify.level, np.float32) if level is None else level.numpy()
        level_F = given.astype(np.float64)
        size = np.abs(pre) if sparsify.signed else pre
        kept = np.argwhere(size > level_F - sparsify.bandwidth / 2)
        return {
            Pair(b, f): float(pre[b, f]) if size[b, f] > level_F[f] else 0.0
            for b, f in kept.tolist()
        }
    if sparsify.over == "token":
        return {
            Pair(b, f): float(value[b, f])
            for b in range(n_tokens)
            for f in _best(score[b], sparsify.k)
        }
    if sparsify.over == "batch":
        chosen = [divmod(i, n_features) for i in _best(score.ravel(), sparsify.k * n_tokens)]
    else:
        shares = (
            equal_budget(sparsify.k, n_tokens, n_features) if budget is None else budget
        ).tolist()
        chosen = [(b, f) for f in range(n_features) for b in _best(score[:, f], shares[f])]
    return {Pair(b, f): float(value[b, f]) for b, f in chosen if score[b, f] > 0}


def objections(code: Code, right: dict[Pair, float]) -> list[str]:
    """What is wrong with a code: its form, its pairs, its values (to float32 rounding); empty if
    nothing is."""
    found: list[str] = []
    tokens, features, values = (
        tensor.tolist() for tensor in (code.tokens, code.features, code.values)
    )
    if code.starts[0] != 0 or code.starts[-1] != len(features) or (code.starts.diff() < 0).any():
        found.append(f"starts are {code.starts.tolist()}")
    mine = list(map(Pair, tokens, features))
    if any(a >= b for a, b in itertools.pairwise(mine)):
        found.append("pairs are not in ascending order, once each")
    if missing := right.keys() - set(mine):
        found.append(f"{len(missing)} pairs are missing, first {min(missing)}")
    if strange := set(mine) - right.keys():
        found.append(f"{len(strange)} pairs are wrong, first {min(strange)}")
    off = [
        p
        for p, v in zip(mine, values, strict=True)
        if p in right and abs(v - right[p]) > 2.0**-23 * abs(right[p]) + 2.0**-149
    ]
    if off:
        found.append(f"{len(off)} values are off, first {off[0]}")
    return found
