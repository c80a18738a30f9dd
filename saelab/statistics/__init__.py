"""Every stated number: its value, its 95% interval by documents or over seeds, and what chance
gives."""

from typing import TYPE_CHECKING

from saelab.statistics.bootstrap import (
    difference,
    over_documents,
    recentred,
    share_over_documents,
    weights,
)
from saelab.statistics.estimate import Estimate
from saelab.statistics.paired import FEW, least, paired, verdict
from saelab.statistics.seeds import between_seeds, over_seeds, spread

if TYPE_CHECKING:
    from saelab.statistics.sums import DocumentSums

__all__ = [
    "FEW",
    "DocumentSums",
    "Estimate",
    "between_seeds",
    "difference",
    "least",
    "over_documents",
    "over_seeds",
    "paired",
    "recentred",
    "share_over_documents",
    "spread",
    "verdict",
    "weights",
]


def __getattr__(name: str) -> object:
    """DocumentSums, which alone needs torch: what only reads estimates does without."""
    if name != "DocumentSums":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from saelab.statistics.sums import DocumentSums

    return DocumentSums
