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
from saelab.statistics.paired import FEW, least, paired, verdict
from saelab.statistics.seeds import over_seeds, spread
from saelab.statistics.sums import DocumentSums

__all__ = [
    "FEW",
    "DocumentSums",
    "Estimate",
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
