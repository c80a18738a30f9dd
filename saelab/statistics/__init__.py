"""Every stated number: its value, its 95% interval by documents or over seeds, and what chance
gives."""

from saelab.statistics.bootstrap import (
    difference,
    over_documents,
    recentred,
    share_over_documents,
    weights,
)
from saelab.statistics.estimate import Estimate
from saelab.statistics.seeds import over_seeds, spread
from saelab.statistics.sums import DocumentSums

__all__ = [
    "DocumentSums",
    "Estimate",
    "difference",
    "over_documents",
    "over_seeds",
    "recentred",
    "share_over_documents",
    "spread",
    "weights",
]
