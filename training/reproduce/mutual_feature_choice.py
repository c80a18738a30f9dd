"""Mutual Choice and Feature Choice against TopK: Ayonrinde 2024, "Adaptive Sparse Allocation with
Mutual Choice & Feature Choice Sparse Autoencoders" (arXiv 2411.02124).

The paper's claims: no dead features even at scale, and better reconstruction at equal sparsity, on
GPT-2 small.
"""

from dataclasses import replace

import numpy as np

from .claims import Claim, Settings, seeds_claim
from .compare import Comparison, baseline, compare, language


def claims(settings: Settings) -> list[Claim]:
    """Dead features and FVU of Mutual Choice and of Feature Choice, shared out equally and by
    Zipf's law, against TopK."""
    plan, recipe = language(settings, "mutual-feature-choice")
    topk = baseline(recipe)
    methods = {
        "TopK": topk,
        "Mutual Choice": replace(topk, sparsify="mutual-choice"),
        "Feature Choice, equal shares": replace(topk, sparsify="feature-choice"),
        "Feature Choice, Zipf shares (schedule and aux-Zipf ours)": recipe,
    }
    comparison = compare(settings, plan, methods)
    return [
        claim for name in methods if name != "TopK" for claim in _against_topk(comparison, name)
    ]


def _against_topk(comparison: Comparison, name: str) -> list[Claim]:
    at = f"at L0 {comparison.plan.target:g}"
    few = 1 / comparison.configs[name].features
    dead_S = comparison.at_target(name, [q.dead for q in comparison.qualities[name]])
    fewer = seeds_claim(
        f"{name}: dead share less TopK's, {at}",
        "fewer dead features",
        comparison.gain("dead", name, "TopK"),
        below=0.0,
    )
    better = seeds_claim(
        f"{name}: FVU less TopK's, {at}",
        "better reconstruction at equal sparsity",
        comparison.gain("fvu", name, "TopK"),
        below=0.0,
    )
    if name == "Mutual Choice":
        return [fewer, better]
    none = seeds_claim(
        f"{name}: dead share, {at}", "no dead features (to 34M)", np.maximum(dead_S, 0), below=few
    )
    return [none, fewer, better]
