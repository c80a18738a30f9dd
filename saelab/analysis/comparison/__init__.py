"""Two SAEs at one place of a model: which features they share, and which of the two is better."""

from saelab.analysis.comparison.together import Together, measure

__all__ = ["Together", "measure"]
