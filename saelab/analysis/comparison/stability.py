"""Which features of an SAE come again in SAEs of other seeds: a property of every feature.

Shapes: N tokens, F features of one SAE, G of another, K members of a group, D width.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from saelab import matching
from saelab.analysis.comparison import cofiring
from saelab.analysis.comparison.cofiring import Codes
from saelab.analysis.comparison.starts import from_start
from saelab.sae import SAE
from saelab.statistics import Estimate, over_seeds

MEMBERS = 4  # of a group, at most: a feature and those that fire most with it


class Stability(NamedTuple):
    """Of every feature of one SAE, in how many of the others it is found again."""

    fired: np.ndarray
    """[F] tokens on which it fires"""
    cosine: np.ndarray
    """[F] share of the other SAEs that have a one-to-one partner above cosine 0.7"""
    cofiring: np.ndarray
    """[F] the same by correlation of activations above 0.7"""
    subspace: np.ndarray
    """[F] mean over the other SAEs of the share of its group's squared norm that lies in the span
    of as many features there, those that fire most with the group; NaN without a group"""
    start: np.ndarray
    """[F] cosine with the row that it started as; empty where that is not known"""
    nulls: dict[str, float | None]
    """what chance gives for `cosine` (random rows), `cofiring` and `subspace` (other tokens)"""

    def mean(self, name: str) -> float | None:
        """A column's mean over the features that fire."""
        column_L = getattr(self, name)[self.fired > 0]
        column_L = column_L[~np.isnan(column_L)]
        return float(column_L.mean()) if len(column_L) else None


def stability(
    saes: Mapping[str, SAE], codes: Mapping[str, Codes], seed: int = 0
) -> dict[str, Stability]:
    """Stability of every SAE's features in the others; codes [N, F] on the same tokens.

    Paulo and Belrose 2025 (arXiv 2501.16615) for the matching by cosine.

    >>> stable = stability({"s0": a, "s1": b, "s2": c}, together.codes)["s0"]
    >>> stable.cosine[7], stable.cofiring[7], stable.nulls["cosine"]
    """
    return {name: _of_one(name, saes, codes, seed) for name in saes}


def over_runs(stable: Mapping[str, Stability], name: str) -> Estimate:
    """The mean over SAEs of a column's mean over live features, interval over seeds from three
    on."""
    means = [each.mean(name) for each in stable.values()]
    nulls = [each.nulls[name] for each in stable.values()]
    known = [null for null in nulls if null is not None]
    null = sum(known) / len(known) if known else None
    if any(mean is None for mean in means):
        return Estimate(None, null=null)
    return over_seeds([mean for mean in means if mean is not None], null)


def _of_one(name: str, saes: Mapping[str, SAE], codes: Mapping[str, Codes], seed: int) -> Stability:
    sae, codes_NF = saes[name], codes[name]
    fired_F = np.bincount(codes_NF.indices, minlength=sae.n_features)
    groups_FK = _groups(codes_NF, signed=sae.sparsify.signed)
    others = [
        _in_other(sae, codes_NF, groups_FK, saes[other], codes[other], seed)
        for other in saes
        if other != name
    ]
    columns, nulls = {}, {}
    for key in ("cosine", "cofiring", "subspace"):
        columns[key] = np.mean([other[key][0] for other in others], axis=0)
        chance_F = np.mean([other[key][1] for other in others], axis=0)[fired_F > 0]
        chance_L = chance_F[~np.isnan(chance_F)]
        nulls[key] = float(chance_L.mean()) if len(chance_L) else None
    return Stability(fired_F, **columns, start=from_start(sae), nulls=nulls)


def _in_other(
    sae: SAE, codes_NF: Codes, groups_FK: np.ndarray, other: SAE, codes_NG: Codes, seed: int
) -> dict[str, tuple[np.ndarray, ...]]:
    """Each column [F] in one other SAE, and by chance: against random rows, or other tokens."""
    signed = sae.sparsify.signed or other.sparsify.signed
    W_FD, W_GD = sae.W_dec.detach().float(), other.W_dec.detach().float()
    random_GD = matching.random_rows(len(W_GD), W_GD.shape[1], seed).to(W_GD)
    both = (codes_NG, cofiring.shifted(codes_NG))
    by_cosine = [matching.partners(W_FD, rows, signed=signed) for rows in (W_GD, random_GD)]
    by_firing = [cofiring.partners(codes_NF, codes, signed=signed) for codes in both]
    return {
        "cosine": tuple(_found(each.rows, each.cosines, len(W_FD)) for each in by_cosine),
        "cofiring": tuple(_found(each.rows, each.correlations, len(W_FD)) for each in by_firing),
        "subspace": tuple(_spanned(W_FD, codes_NF, groups_FK, W_GD, c, signed) for c in both),
    }


def _found(rows_M: Any, alike_M: Any, n_features: int) -> np.ndarray:
    """[F] 1 where a feature has a partner above FOUND, else 0."""
    found_F = np.zeros(n_features)
    found_F[np.asarray(rows_M)[np.abs(np.asarray(alike_M)) > matching.FOUND]] = 1
    return found_F


def _groups(codes_NF: Codes, *, signed: bool) -> np.ndarray:
    """[F, K]: each feature, and those whose activations correlate most with its own, by at least
    cofiring.LEAST; -1 for none."""
    rows, columns, values = cofiring.correlated(codes_NF, codes_NF, signed=signed)
    apart = rows != columns
    best = _strongest(rows[apart], columns[apart], values[apart], codes_NF.shape[1], MEMBERS - 1)
    return np.concatenate([np.arange(len(best))[:, None], best], axis=1)


def _strongest(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, n_rows: int, n: int
) -> np.ndarray:
    """[R, n]: of each row the columns of largest |value|, -1 where there are fewer."""
    order = np.lexsort((-np.abs(values), rows))
    rows, columns = rows[order], columns[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    best = np.full((n_rows, n), -1)
    best[rows[place < n], place[place < n]] = columns[place < n]
    return best


def _spanned(
    W_FD: torch.Tensor,
    codes_NF: Codes,
    groups_FK: np.ndarray,
    W_GD: torch.Tensor,
    codes_NG: Codes,
    signed: bool,
) -> np.ndarray:
    """[F]: the share of a group's squared norm in the span of as many features of the other SAE:
    of each member the one that fires most with it. NaN for a feature without a group."""
    rows, columns, values = cofiring.correlated(codes_NF, codes_NG, signed=signed)
    theirs_F = _strongest(rows, columns, values, len(W_FD), 1)[:, 0]
    share_F = np.full(len(W_FD), np.nan)
    for feature in np.flatnonzero(groups_FK[:, 1] >= 0):
        members = groups_FK[feature][groups_FK[feature] >= 0]
        there = np.unique(theirs_F[members][theirs_F[members] >= 0])
        mine_KD = torch.nn.functional.normalize(W_FD[members], dim=1)
        basis_DK = torch.linalg.qr(W_GD[there].T).Q
        share_F[feature] = float((mine_KD @ basis_DK).square().sum() / len(members))
    return share_F
