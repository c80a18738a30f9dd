"""Gradient SAEs against TopK: Olmo, Wilson, Forsey, Hepner, Howe and Wingate 2025, "Features that
Make a Difference: Leveraging Gradients for Improved Dictionary Learning" (arXiv 2411.10397).

The paper's claims: at equal sparsity the model's loss suffers less, fewer latents are dead, and
latents steer logits more. The gradient knows the next token, so it picks features in training only.
"""

from collections.abc import Sequence

import numpy as np

from saelab import SAE
from saelab.activations import Cache

from ..config import Config
from . import data, steering
from .cells import language_base
from .claims import Claim, Settings, seeds_claim
from .compare import HOOK, Comparison, baseline, compare, language
from .grid import Question, Size, Study
from .measure import added_loss, tokens

FEATURES, CONTEXTS = 256, 8  # steered per SAE


def claims(settings: Settings) -> list[Claim]:
    """Loss added by the reconstruction, dead features, FVU and steering of g-SAE against TopK."""
    plan, recipe = language(settings, "g-sae")
    comparison = compare(settings, plan, methods(recipe))
    cache, at = Cache(recipe.cache), f"at L0 {plan.target:g}"
    loss = {}
    for name, saes in comparison.saes.items():
        settings.progress("splice", len(loss) + 1, 2)
        loss[name] = comparison.at_target(
            name, added_loss(saes, cache, data.model(settings), cache.resolve(HOOK), plan.held_out)
        )
    return [
        seeds_claim(
            f"g-SAE: cross-entropy added (nats) less TopK's, {at}",
            "better loss",
            loss["g-SAE"] - loss["TopK"],
            below=0.0,
        ),
        seeds_claim(
            f"g-SAE: dead share less TopK's, {at}",
            "fewer dead latents",
            comparison.gain("dead", "g-SAE", "TopK"),
            below=0.0,
        ),
        seeds_claim(
            "a g-SAE feature moves the prediction more than one of TopK (chance; null 0.5)",
            "better at steering logits",
            _stronger(settings, comparison, cache),
            above=0.5,
        ),
    ]


def methods(recipe: Config) -> dict[str, Config]:
    """TopK and g-SAE at the recipe's size."""
    return {"TopK": baseline(recipe), "g-SAE": recipe}


def studies(settings: Settings, size: Size) -> list[Study]:
    """The claims on the loss and on dead latents, as a grid asks them; steering is left out."""
    base = language_base(settings, "g-sae", size, gradients=True)
    cache = Cache(base.cache)

    def loss(saes: Sequence[SAE]) -> dict[str, list[float]]:
        at = cache, data.model(settings), cache.resolve(HOOK)
        return {"loss": added_loss(saes, *at, size.apart, behind=size.apart).tolist()}

    questions = (
        Question("g-SAE", "TopK", "loss", "better loss"),
        Question("g-SAE", "TopK", "dead", "fewer dead latents"),
        Question("g-SAE", "TopK", "fvu", "(not compared)"),
    )
    return [Study("bundled model", base, methods, questions, loss)]


def _stronger(settings: Settings, comparison: Comparison, cache: Cache) -> np.ndarray:
    """[S]: the chance that a g-SAE feature has a larger effect than one of TopK's with the same
    seed, at the first k."""
    plan = comparison.plan
    x_ND = tokens(str(cache.path), HOOK, "held_out", plan.held_out)
    norm = steering.norm_of(x_ND)
    n_features, n_contexts = (32, 2) if settings.quick else (FEATURES, CONTEXTS)
    tokens_CT = steering.contexts(cache, n_contexts, settings.seed)
    chances = []
    for seed in range(plan.n_seeds):
        settings.progress("steer", seed + 1, plan.n_seeds)
        saes = [comparison.saes[name][seed * len(plan.ks)] for name in ("g-SAE", "TopK")]
        rows = [steering.alive(sae, x_ND, n_features, settings.seed + seed) for sae in saes]
        mine_R, theirs_R = (
            steering.effects(r, data.model(settings), cache.resolve(HOOK), tokens_CT, norm)
            for r in rows
        )
        chances.append(steering.superiority(mine_R, theirs_R))
    return np.array(chances)
