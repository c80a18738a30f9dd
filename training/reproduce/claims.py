"""What a reproduction states: a paper's claim, our number with its interval, and whether it held.

Shapes: S seeds.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from saelab.statistics import Estimate, over_seeds

SEEDS = 5  # before the word "better"


class Claim(NamedTuple):
    """One claim of a paper."""

    claim: str
    """what is claimed"""
    theirs: str
    """what the paper says"""
    ours: Estimate
    """what we measured"""
    holds: bool | None
    """None where it is undecided"""

    def as_dict(self) -> dict:
        """A row of the `reproduce` document."""
        return {
            "claim": self.claim,
            "theirs": self.theirs,
            **self.ours.as_dict(),
            "holds": self.holds,
        }


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
    device: str = "cpu"
    """what models and SAEs compute on"""
    model_dtype: str = "float32"
    """what the model computes in"""


def judge(ours: Estimate, *, above: float | None = None, below: float | None = None) -> bool | None:
    """Whether an interval lies above (or below) a bound: True wholly beyond it, False wholly not,
    None if it straddles it.

    Raises ValueError unless exactly one bound is named. An interval that is None decides nothing.
    """
    if (above is None) == (below is None):
        raise ValueError("name one bound: above or below")
    if ours.low is None or ours.high is None:
        return None
    if above is not None:
        return _decided(ours.above(above), ours.high <= above)
    return _decided(ours.below(below), ours.low >= below)  # type: ignore[arg-type, operator]


def within(ours: Estimate, low: float, high: float) -> bool | None:
    """Whether an interval lies within two bounds; None where it straddles one."""
    sides = (judge(ours, above=low), judge(ours, below=high))
    return _decided(all(sides), False in sides)


def _decided(yes: bool, no: bool) -> bool | None:
    return True if yes else False if no else None


def seeds_claim(
    claim: str, theirs: str, values_S: Sequence[float] | np.ndarray, **bound: float
) -> Claim:
    """The claim that the mean over seeds lies above=bound or below=bound; undecided with fewer than
    five seeds.

    For a comparison the values are differences within each seed (same data, same seed), which pairs
    it.
    """
    ours = over_seeds(values_S)
    return Claim(claim, theirs, ours, judge(ours, **bound) if len(values_S) >= SEEDS else None)
