"""An explanation as it is kept, shown and searched. Imports no torch."""

from typing import NamedTuple

from saelab.statistics import Estimate

RULES = "rules"  # the method of rules; another one is the name of the language model asked


class Explanation(NamedTuple):
    """What makes a feature fire, in words, and how well that tells where it fires."""

    text: str
    """such as `on "self" after "("`"""
    score: Estimate
    """balanced accuracy of detection on held-out contexts, interval over documents; null: that of
    other features' explanations. No value where the feature does not fire there"""
    method: str = RULES
    """`rules`, or the name of the language model that was asked"""
    kind: str = ""
    """the rule's family, such as `token` or `position`; empty for words"""
    cells: int = 0
    """how many alternatives the rule lists"""
    token: Estimate = Estimate(None)
    """the same score of the best single token"""
    gain: Estimate = Estimate(None)
    """score less that of the best single token, paired by document; null 0"""
    recall: float | None = None
    """share of the held-out firings that the explanation tells"""
    precision: float | None = None
    """share of what it tells on which the feature fires"""
    firings: int = 0
    """held-out tokens on which the feature fires"""
    opposite: "Explanation | None" = None
    """of a signed SAE: of the feature's rarer sign"""
