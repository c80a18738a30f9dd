"""Mutual Choice and Feature Choice against TopK: Ayonrinde 2024, "Adaptive Sparse Allocation with
Mutual Choice & Feature Choice Sparse Autoencoders" (arXiv 2411.02124).

The paper's claims: no dead features even at scale, and better reconstruction at equal sparsity, on
GPT-2 small.
"""

from dataclasses import replace

import numpy as np

from ..config import Config
from .cells import language_base
from .claims import Claim, Settings, seeds_claim
from .compare import Comparison, baseline, compare, language
from .grid import Question, Size, Study

OURS = (
    "Mutual Choice",
    "Feature Choice, equal shares",
    "Feature Choice, Zipf shares (schedule and aux-Zipf ours)",
)
FEWER, BETTER = "fewer dead features", "better reconstruction at equal sparsity"
NONE = "no dead features (to 34M)"


def claims(settings: Settings) -> list[Claim]:
    """Dead features and FVU of Mutual Choice and of Feature Choice, shared out equally and by
    Zipf's law, against TopK."""
    plan, recipe = language(settings, "mutual-feature-choice")
    comparison = compare(settings, plan, methods(recipe))
    return [claim for name in OURS for claim in _against_topk(comparison, name)]


def methods(recipe: Config) -> dict[str, Config]:
    """TopK, and what is compared with it, at the recipe's size."""
    topk = baseline(recipe)
    ours = replace(topk, sparsify="mutual-choice"), replace(topk, sparsify="feature-choice"), recipe
    return {"TopK": topk, **dict(zip(OURS, ours, strict=True))}


def studies(settings: Settings, size: Size) -> list[Study]:
    """The claims of `claims` on Mutual Choice and on Feature Choice with Zipf's shares, as a grid
    asks them."""
    base = language_base(settings, "mutual-feature-choice", size)
    asked = OURS[0], OURS[-1]
    better = [Question(name, "TopK", "fvu", BETTER) for name in asked]
    fewer = [Question(name, "TopK", "dead", FEWER) for name in asked]
    # Less than one feature of the widest dictionary: none.
    none = Question(OURS[-1], "", "dead", NONE, bound=1 / max(size.features))

    def compared(recipe: Config) -> dict[str, Config]:
        every = methods(recipe)
        return {name: every[name] for name in ("TopK", *asked)}

    return [Study("bundled model", base, compared, (*better, *fewer, none))]


def _against_topk(comparison: Comparison, name: str) -> list[Claim]:
    at = f"at L0 {comparison.plan.target:g}"
    few = 1 / comparison.configs[name].features
    dead_S = comparison.at_target(name, [q.dead for q in comparison.qualities[name]])
    fewer = seeds_claim(
        f"{name}: dead share less TopK's, {at}",
        FEWER,
        comparison.gain("dead", name, "TopK"),
        below=0.0,
    )
    better = seeds_claim(
        f"{name}: FVU less TopK's, {at}",
        BETTER,
        comparison.gain("fvu", name, "TopK"),
        below=0.0,
    )
    if name == "Mutual Choice":
        return [fewer, better]
    none = seeds_claim(f"{name}: dead share, {at}", NONE, np.maximum(dead_S, 0), below=few)
    return [none, fewer, better]
