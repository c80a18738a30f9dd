"""AbsTopK against TopK: Zhu, Khalili and Zhu 2025, "AbsTopK: Rethinking Sparse Autoencoders For
Bidirectional Features" (arXiv 2510.00404).

The paper's claims: better reconstruction than TopK of the same width, features that mean one thing
on each side of zero, and single features that do as well as the difference in means, which is told
the labels. A signed feature is two one-sided ones with opposite directions, so TopK of twice the
width is the fair baseline. On the bundled model, where concepts are kinds of Python tokens, and on
a synthetic world of bipolar axes.

Shapes: N tokens, D width, C concepts, G axes, F features.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from saelab import SAE
from saelab.activations import Cache
from saelab.evaluation import concepts, ground_truth, probing, synthetic_cache
from saelab.evaluation.alignment import Labelled, align
from saelab.evaluation.concepts import Positions
from saelab.evaluation.synthetic import Spec, World

from .. import recipes
from ..config import Config
from . import data
from .cells import language_base
from .claims import Claim, Settings, seeds_claim
from .compare import HOOK, Comparison, Plan, baseline, compare, language
from .grid import Question, Size, Study

SAME, TWICE = "TopK", "TopK of twice the width"
RECONSTRUCTION = {SAME: "better reconstruction", TWICE: "(not compared)"}
CAPTURED = {SAME: "one feature for both directions", TWICE: "(not compared)"}
TOLD = {SAME: "not on every model (sparse probing)", TWICE: "(not compared)"}
MEANS = "difference in means"
LABELLED, FEW = (6_000, 4_000), (2_000, 1_000)  # tokens: to choose features on, to score them
WORLD = Spec(
    width=64, n_features=256, firing=(0.4, 0.01), roots=4, bipolar=1.0
)  # about 7 of its axes fire at a time
SIZE = {"features": 256, "batch": 1024}
FULL = Plan(
    (5, 9),
    7.0,
    (2e-3, 4e-3, 8e-3),
    5,
    300_000,
    15_000,
    {**SIZE, "tokens": 600_064, "calibration": 100_000},
)
QUICK = Plan(
    (5, 9), 7.0, (4e-3,), 2, 40_000, 3_000, {**SIZE, "tokens": 24_576, "calibration": 16_384}
)


def claims(settings: Settings) -> list[Claim]:
    """FVU against TopK of the same and of twice the width, on the model and in the world; concepts
    that single features tell; axes that one feature captures."""
    plan, recipe = language(settings, "abstopk")
    comparison = compare(settings, plan, _methods(recipe))
    model = _reconstruction(comparison, "bundled model")
    model += _told(comparison, Probe.of(settings, Cache(recipe.cache)))
    plan = QUICK if settings.quick else FULL
    folder = synthetic_cache.write(
        WORLD, settings.work / f"cache-bipolar-{plan.captured}", plan.captured
    )
    recipe = replace(
        recipes.read("abstopk"), cache=str(folder), hook=synthetic_cache.HOOK, **plan.small
    )
    comparison = compare(settings, plan, _methods(recipe))
    return [
        *model,
        *_reconstruction(comparison, "bipolar axes"),
        *_captured(comparison, Cache(folder)),
    ]


def studies(settings: Settings, size: Size) -> list[Study]:
    """The claims of `claims`, as a grid asks them, in both places."""
    better = tuple(
        Question("AbsTopK", other, "fvu", said) for other, said in RECONSTRUCTION.items()
    )
    both = tuple(
        Question("AbsTopK", other, "f1", said, above=True) for other, said in CAPTURED.items()
    )
    base = language_base(settings, "abstopk", size)
    probe = Probe.of(settings, Cache(base.cache))
    told = [Question("AbsTopK", other, "ap", said, above=True) for other, said in TOLD.items()]
    told.append(Question("AbsTopK", "", "ap", MEANS, probe.of_means(), above=True))
    model = Study("bundled model", base, _methods, (*better, *told), {"ap": probe.of_saes})
    n_tokens = size.captured
    folder = synthetic_cache.write(WORLD, settings.work / f"cache-bipolar-{n_tokens}", n_tokens)
    recipe = recipes.read("abstopk")
    base = replace(recipe, cache=str(folder), hook=synthetic_cache.HOOK, k=int(FULL.target))
    f1 = {"f1": _axes(Cache(folder), size.apart)}
    return [model, Study("bipolar axes", base, _methods, (*better, *both), f1)]


class Probe(NamedTuple):
    """How well single features tell concepts: mean over concepts of the average precision, features
    chosen on training tokens and scored on held-out ones."""

    train: Positions
    held_out: Positions

    @classmethod
    def of(cls, settings: Settings, cache: Cache) -> "Probe":
        """Of the kinds of Python tokens in a cache."""
        sizes = zip(("train", "held_out"), FEW if settings.quick else LABELLED, strict=True)
        tokenizer = data.model(settings).tokenizer
        return cls(*(concepts.of_text(cache, HOOK, tokenizer, *size) for size in sizes))

    def of_saes(self, saes: Sequence[SAE]) -> list[float]:
        """Of each dictionary."""
        return [
            self._precision(*(probing.latents(sae, part.x) for part in (self.train, self.held_out)))
            for sae in saes
        ]

    def of_means(self) -> float:
        """Of the directions from the mean of the tokens without a concept to those with it."""
        x_ND, labels_NC = self.train.x.double().numpy(), self.train.labels
        means_CD = [x_ND[on_N].mean(0) - x_ND[~on_N].mean(0) for on_N in labels_NC.T]
        both = (part.x.double().numpy() - x_ND.mean(0) for part in (self.train, self.held_out))
        return self._precision(*(csr_array(x_ND @ np.stack(means_CD).T) for x_ND in both))

    def _precision(self, seen: Any, scored: Any) -> float:
        """Of the codes [N, F] of the two parts."""
        parts = zip((seen, scored), (self.train, self.held_out), strict=True)
        both = [Labelled(codes, part.labels, part.owners) for codes, part in parts]
        found = align(*both, self.train.names, resamples=2, shuffles=0).precision.value
        return float("nan") if found is None else found


def _axes(cache: Cache, n_tokens: int) -> Callable[[Sequence[SAE]], list[float]]:
    """What measures `axis_f1` on the last n_tokens of the held-out tokens."""
    world, x_ND, truth_NG = _samples(cache)
    x_ND, truth_NG = x_ND[-n_tokens:], truth_NG[-n_tokens:]
    return lambda saes: [axis_f1(sae, x_ND, truth_NG, world.directions_GD) for sae in saes]


def _samples(cache: Cache) -> tuple[World, Tensor, Tensor]:
    """The world of a cache, and its held-out tokens [N, D] with what is true of them [N, G]."""
    world = synthetic_cache.world_of(cache)
    chunks = list(cache.contexts(synthetic_cache.HOOK, "held_out"))
    x_ND = torch.cat([chunk.acts[chunk.counted] for chunk in chunks])
    truths = (synthetic_cache.truth(world, cache, chunk.tokens)[chunk.counted] for chunk in chunks)
    return world, x_ND, torch.cat(list(truths))


def _methods(recipe: Config) -> dict[str, Config]:
    topk = baseline(recipe)
    return {"AbsTopK": recipe, SAME: topk, TWICE: replace(topk, features=2 * recipe.features)}


def _reconstruction(comparison: Comparison, where: str) -> list[Claim]:
    what = f"at L0 {comparison.plan.target:g}, {where}"
    return [
        seeds_claim(
            f"AbsTopK: FVU less that of {other}, {what}",
            said,
            comparison.gain("fvu", "AbsTopK", other),
            below=0.0,
        )
        for other, said in RECONSTRUCTION.items()
    ]


def _told(comparison: Comparison, probe: Probe) -> list[Claim]:
    """Concepts told by single features of AbsTopK, beside TopK's and the difference in means."""
    ap = {
        name: comparison.at_target(name, probe.of_saes(saes))
        for name, saes in comparison.saes.items()
    }
    title = "AbsTopK: mean average precision of single features less that of"
    others = [(other, said, ap[other]) for other, said in TOLD.items()]
    others.append((MEANS, "on par or better", probe.of_means()))
    return [
        seeds_claim(f"{title} {other}, bundled model", said, ap["AbsTopK"] - theirs, above=0.0)
        for other, said, theirs in others
    ]


def _captured(comparison: Comparison, cache: Cache) -> list[Claim]:
    """How well the best single feature tells on which tokens, and on which side, an axis fires:
    mean F1 over the axes."""
    world, x_ND, truth_NG = _samples(cache)
    f1 = {
        name: comparison.at_target(
            name, [axis_f1(sae, x_ND, truth_NG, world.directions_GD) for sae in saes]
        )
        for name, saes in comparison.saes.items()
    }
    title = "AbsTopK: F1 of the best feature per bipolar axis less that of"
    return [
        seeds_claim(f"{title} {other}", said, f1["AbsTopK"] - f1[other], above=0.0)
        for other, said in CAPTURED.items()
    ]


@torch.no_grad()
def axis_f1(sae: SAE, x_ND: Tensor, truth_NG: Tensor, directions_GD: Tensor) -> float:
    """Mean over axes of the best F1 among the features whose decoder row lies closest to the axis;
    0 for an axis without one.

    A feature is asked for both sides of its axis: one that only ever takes one sign reaches 2/3 at
    most.
    """
    partners = ground_truth.partners(sae.W_dec, directions_GD)
    f1_F = ground_truth.detection(
        ground_truth.counts(sae.encode(x_ND.to(sae.W_enc)), truth_NG, partners, signed=True)
    ).f1
    best_G = np.zeros(len(directions_GD))
    np.maximum.at(best_G, partners.features.numpy(), f1_F)
    return float(best_G.mean())
