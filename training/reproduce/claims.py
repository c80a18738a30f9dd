"""What a reproduction states: a paper's claim, our number with its interval, and whether it held.

Shapes: S seeds.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

SEEDS = 5  # before the word "better"


class Claim(NamedTuple):
    """One claim. theirs: what the paper says; value, low, high: ours with its 95% interval; holds:
    None where it is undecided."""

    claim: str
    theirs: str
    value: float | None
    low: float | None
    high: float | None
    holds: bool | None


def _silent(what: str, done: int, total: int) -> None:
    return None


class Settings(NamedTuple):
    """How a reproduction runs. quick: the small form; work: folder of caches and runs, which are
    reused where they exist."""

    quick: bool = False
    seed: int = 0
    work: Path = Path("runs/reproduce")
    progress: Callable[[str, int, int], None] = _silent
    """called with what is being done, how much of it is done, and of how much"""


def over_seeds(
    values_S: Sequence[float] | np.ndarray,
) -> tuple[float | None, float | None, float | None]:
    """(mean, low, high) of one number per seed: Student's 95% interval of the mean.

    No interval from fewer than 3 seeds; nothing at all where a seed has no number (NaN).
    """
    from scipy import stats

    mean, n = float(np.mean(values_S)), len(values_S)
    if np.isnan(mean):
        return None, None, None
    if n < 3:
        return mean, None, None
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values_S, ddof=1) / n**0.5)
    return mean, mean - half, mean + half


def judge(
    low: float | None, high: float | None, *, above: float | None = None, below: float | None = None
) -> bool | None:
    """Whether an interval lies above (or below) a bound: True wholly beyond it, False wholly not,
    None if it straddles it.

    Raises ValueError unless exactly one bound is named. An interval that is None decides nothing.
    """
    if (above is None) == (below is None):
        raise ValueError("name one bound: above or below")
    if low is None or high is None:
        return None
    if above is not None:
        return True if low > above else False if high <= above else None
    return True if high < below else False if low >= below else None  # type: ignore[operator]


def seeds_claim(
    claim: str, theirs: str, values_S: Sequence[float] | np.ndarray, **bound: float
) -> Claim:
    """The claim that the mean over seeds lies above=bound or below=bound; undecided with fewer than
    five seeds.

    For a comparison the values are differences within each seed (same data, same seed), which pairs
    it.
    """
    value, low, high = over_seeds(values_S)
    return Claim(
        claim,
        theirs,
        value,
        low,
        high,
        judge(low, high, **bound) if len(values_S) >= SEEDS else None,
    )
