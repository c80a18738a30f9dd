"""Which features two SAEs share, by what they write and by when they fire, and which one alone has.

Shapes: N tokens; A features of one, B of the other; F features of either.
"""

from typing import Any

import numpy as np
import torch

from saelab import matching
from saelab.analysis.comparison import cofiring, splitting
from saelab.analysis.comparison.cofiring import Codes
from saelab.sae import SAE

SHUFFLED = 512  # features whose splitting by chance is measured, at most
LEAST = 0.5  # cosine or correlation of pairs that are listed
LISTED = 1000  # split features that are listed, at most


def shared(one: SAE, other: SAE, one_NA: Codes, other_NB: Codes, seed: int = 0) -> dict:
    """Fields of compare.json about the features of two SAEs, codes [N, F] on the same tokens.

    Found in the other: paired one to one above cosine 0.7 (`matching.partners`). Shares are of the
    features that fire on these tokens.

    >>> shared(a, b, together.codes["a"], together.codes["b"])["matched"]["first"]["value"]
    """
    signed = one.sparsify.signed or other.sparsify.signed
    W_AD, W_BD = one.W_dec.detach(), other.W_dec.detach()
    by_cosine = matching.partners(W_AD, W_BD, signed=signed)
    random_BD = matching.random_rows(len(W_BD), W_BD.shape[1], seed).to(W_BD)
    by_chance = matching.candidates(W_AD, random_BD, signed=signed)
    by_firing = cofiring.partners(one_NA, other_NB, signed=signed)
    moved_NB = cofiring.shifted(other_NB)
    together_by_chance = cofiring.partners(one_NA, moved_NB, signed=signed)
    fired = [np.bincount(codes.indices, minlength=codes.shape[1]) for codes in (one_NA, other_NB)]
    cosine = _sizes(by_cosine.cosines, signed)
    correlation = _sizes(by_firing.correlations, signed)
    whole = len(W_AD) * len(W_BD) <= matching.MOST
    return {
        "matched": {
            "method": "hungarian" if whole else "candidates",
            "threshold": matching.FOUND,
            "pairs": int((cosine > matching.FOUND).sum()),
            **_shares(by_cosine[:2], cosine, fired, _sizes(by_chance.cosines, signed)),
        },
        "cofiring": {
            "tokens": one_NA.shape[0],
            "threshold": matching.FOUND,
            "pairs": int((correlation > matching.FOUND).sum()),
            **_shares(
                by_firing[:2],
                correlation,
                fired,
                _sizes(together_by_chance.correlations, signed),
            ),
        },
        "splitting": {
            "share": splitting.SHARE,
            "first": _splitting(one_NA, other_NB, moved_NB, seed),
            "second": _splitting(other_NB, one_NA, cofiring.shifted(one_NA), seed),
        },
        "only": dict(
            zip(("first", "second"), _only(by_cosine, by_firing, fired, signed), strict=True)
        ),
        "fired": {"first": fired[0].tolist(), "second": fired[1].tolist()},
        "partners": {
            "matched": _columns(by_cosine, cosine),
            "cofiring": _columns(by_firing, correlation),
        },
    }


def _sizes(values: Any, signed: bool) -> np.ndarray:
    """How alike partners are: of signed features a row and its negative are one axis."""
    values = np.asarray(values, dtype=np.float64)
    return np.abs(values) if signed else values


def _shares(pairs: Any, alike: np.ndarray, fired: list[np.ndarray], chance: np.ndarray) -> dict:
    """Shares of the live features of each SAE that the other has found, and what chance gives."""
    sides = {}
    for name, members, fired_F in zip(("first", "second"), pairs, fired, strict=True):
        high = np.asarray(members)[alike > matching.FOUND]
        n_live = int((fired_F > 0).sum())
        value = float((fired_F[high] > 0).sum()) / n_live if n_live else None
        null = float((chance > matching.FOUND).sum()) / len(fired_F)
        sides[name] = {"value": value, "low": None, "high": None, "null": null}
    return sides


def _columns(pairs: Any, alike: np.ndarray) -> dict[str, list]:
    """Partners as columns, most alike first, with their sign; those below LEAST are no partners."""
    order = np.argsort(-alike, kind="stable")
    order = order[alike[order] >= LEAST]
    first, second, values = (np.asarray(column)[order].tolist() for column in pairs)
    return {"first": first, "second": second, "value": [round(value, 4) for value in values]}


def _only(
    by_cosine: matching.Matching,
    by_firing: cofiring.Partners,
    fired: list[np.ndarray],
    signed: bool,
) -> list[list[int]]:
    """Of each SAE the features that fire and that the other has neither by cosine nor by
    correlation, those that fire most often first."""
    sides = []
    for side, fired_F in enumerate(fired):
        alone_F = fired_F > 0
        for pairs in (by_cosine, by_firing):
            alone_F[np.asarray(pairs[side])[_sizes(pairs[2], signed) > matching.FOUND]] = False
        numbers = np.flatnonzero(alone_F)
        sides.append(numbers[np.argsort(-fired_F[numbers], kind="stable")].tolist())
    return sides


def _splitting(one_NA: Codes, other_NB: Codes, moved_NB: Codes, seed: int) -> dict[str, Any]:
    """How one SAE's features are covered by the other's, with what other tokens give."""
    every = splitting.splits(one_NA, other_NB)
    numbers = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))
    sample = [every[number].feature for number in numbers[:SHUFFLED].tolist()]
    by_chance = splitting.splits(one_NA, moved_NB, sample)
    split = sorted((each for each in every if each.is_split), key=lambda each: -each.fired)
    return {
        "features": len(every),
        "covered": [
            {
                "parts": n,
                "value": _mean_covered(every, n),
                "low": None,
                "high": None,
                "null": _mean_covered(by_chance, n),
            }
            for n in range(1, splitting.PARTS + 1)
        ],
        "split": {
            "value": len(split) / len(every) if every else None,
            "low": None,
            "high": None,
            "null": sum(each.is_split for each in by_chance) / len(sample) if sample else None,
        },
        "listed": [each._asdict() for each in split[:LISTED]],
    }


def _mean_covered(splits: list[splitting.Split], n: int) -> float | None:
    """Mean over features of the share of firings that the best n cover."""
    return sum(each.by(n) for each in splits) / len(splits) if splits else None
