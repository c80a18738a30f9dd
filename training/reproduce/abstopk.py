"""AbsTopK against TopK: Zhu, Khalili and Zhu 2025, "AbsTopK: Rethinking Sparse Autoencoders For
Bidirectional Features" (arXiv 2510.00404).

The paper's claims: better reconstruction than TopK of the same width, features that mean one thing
on each side of zero, and single features that do as well as the difference in means, which is told
the labels. A signed feature is two one-sided ones with opposite directions, so TopK of twice the
width is the fair baseline. On the bundled model, where concepts are kinds of Python tokens, and on
a synthetic world of bipolar axes.

Shapes: N tokens, D width, G axes, F features.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from saelab import SAE
from saelab.activations import Cache
from saelab.evaluation import ground_truth, synthetic_cache
from saelab.evaluation.synthetic import Spec, World

from .. import recipes
from ..config import Config
from .cells import language_base
from .claims import Claim, Settings, seeds_claim
from .compare import Comparison, Plan, baseline, compare, language
from .grid import Measure, Question, Size, Study
from .single_features import WORDS, Tasks

SAME, TWICE = "TopK", "TopK of twice the width"
RECONSTRUCTION = {SAME: "better reconstruction", TWICE: "(not compared)"}
CAPTURED = {SAME: "one feature for both directions", TWICE: "(not compared)"}
TOLD = {SAME: "not on every model (sparse probing)", TWICE: "(not compared)"}
MEANS = "difference in means"
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
    model += _told(comparison, Tasks.of(settings, Cache(recipe.cache)))
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
    tasks = Tasks.of(settings, Cache(base.cache))
    told = [
        Question("AbsTopK", other, number, said, above=True)
        for number in WORDS
        for other, said in TOLD.items()
    ]
    told += [
        Question("AbsTopK", "", number, MEANS, bound, above=True)
        for number, bound in tasks.of_means().items()
    ]
    model = Study("bundled model", base, _methods, (*better, *told), tasks.of_saes)
    n_tokens = size.captured
    folder = synthetic_cache.write(WORLD, settings.work / f"cache-bipolar-{n_tokens}", n_tokens)
    recipe = recipes.read("abstopk")
    base = replace(recipe, cache=str(folder), hook=synthetic_cache.HOOK, k=int(FULL.target))
    f1 = _axes(Cache(folder), size.apart)
    return [model, Study("bipolar axes", base, _methods, (*better, *both), f1)]


def _axes(cache: Cache, n_tokens: int) -> Measure:
    """What measures `axis_f1` on the last n_tokens of the held-out tokens."""
    world, x_ND, truth_NG = _samples(cache)
    x_ND, truth_NG = x_ND[-n_tokens:], truth_NG[-n_tokens:]
    at = x_ND, truth_NG, world.directions_GD
    return lambda saes: {"f1": [axis_f1(sae, *at) for sae in saes]}


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


def _told(comparison: Comparison, tasks: Tasks) -> list[Claim]:
    """What single features of AbsTopK tell and do, beside TopK's and the difference in means."""
    measured = {name: tasks.of_saes(saes) for name, saes in comparison.saes.items()}
    rows = []
    for number, words in WORDS.items():
        values = {
            name: comparison.at_target(name, numbers[number]) for name, numbers in measured.items()
        }
        title = f"AbsTopK: {words} less that of"
        for other, said in TOLD.items():
            gain_S = values["AbsTopK"] - values[other]
            rows.append(seeds_claim(f"{title} {other}, bundled model", said, gain_S, above=0.0))
        gain_S = values["AbsTopK"] - tasks.of_means()[number]
        claim = f"{title} {MEANS}, bundled model"
        rows.append(seeds_claim(claim, "on par or better", gain_S, above=0.0))
    return rows


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
