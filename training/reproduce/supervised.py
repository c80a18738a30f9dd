"""Supervised dictionaries against SAEs: Makelov, Lange and Nanda 2024, "Towards Principled
Evaluations of Sparse Autoencoders for Interpretability and Control" (arXiv 2405.08366).

The paper's claims: edits with supervised dictionaries agree with the ground-truth patch in more
than 80% of cases; SAEs trained on the task are worse, full-distribution SAEs worse still; SAEs
whose decoder stays random are on par with those. The model's full distribution is `bundled-mix`.
TopK takes the place of the paper's ReLU with L1, whose sweeps it saves.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from saelab import SAE, tasks
from saelab.evaluation import controls, supervised
from saelab.evaluation.supervised import compare, toys
from saelab.evaluation.supervised import site as sites
from saelab.statistics import over_seeds

from ..config import Config
from ..run import Run
from . import data
from .claims import SEEDS, Claim, Settings, seeds_claim, within

HOOK, HEADS = "blocks.1.hook_resid_post", "blocks.3.attn.hook_z"
ON_PAR = 0.1  # of edit agreement
MANY = 32


class Plan(NamedTuple):
    """A size. sites: (task, hook, positions, whether SAEs are compared there); captured, trained:
    tokens of the SAEs."""

    seeds: int
    sites: tuple[tuple[str, str, tuple[str, ...], bool], ...]
    fit: int
    test: int
    captured: int
    trained: int
    features: int
    steps: int
    toy: dict[str, Any]


RESIDUAL = tuple((task, HOOK, (), True) for task in supervised.TASKS)
FULL = Plan(
    SEEDS,
    (*RESIDUAL, *((task, HEADS, ("end",), False) for task in supervised.TASKS)),
    2000,
    100,
    500_000,
    500_000,
    1024,
    400,
    {},
)
QUICK = Plan(
    2,
    RESIDUAL[:1],
    600,
    30,
    40_000,
    40_960,
    512,
    100,
    {"n_values": 20, "n_latents": 128, "steps": 400},
)


def claims(settings: Settings) -> list[Claim]:
    """Edit agreement of each kind of dictionary, and the two toys."""
    plan = QUICK if settings.quick else FULL
    seeds = range(settings.seed, settings.seed + plan.seeds)
    folders = _full_distribution(settings, plan, seeds)
    agreements = []
    for task, hook, positions, with_saes in plan.sites:
        measured = []
        for number, seed in enumerate(seeds):
            settings.progress(f"{task} at {hook}", number, plan.seeds)
            sae = data.sae(settings, folders[number]) if with_saes else None
            where = (task, hook, list(positions))
            measured.append(_measure(plan, data.model(settings), where, sae, seed))
        agreements += _agreement(f"{task}, {hook}", measured, with_saes)
    return agreements + _occlusion(settings, plan, seeds) + _over_splitting(seeds)


def _full_distribution(settings: Settings, plan: Plan, seeds: Sequence[int]) -> list:
    cache = data.cache(settings, "bundled-mix", [HOOK], plan.captured)
    config = Config(
        cache=str(cache),
        hook=HOOK,
        features=plan.features,
        tokens=plan.trained,
        batch=1024,
        lr=2e-3,
    )
    return data.runs(settings, [Config(**{**vars(config), "seed": seed}) for seed in seeds])


def _measure(
    plan: Plan, model: Any, where: tuple[str, str, list[str]], full: SAE | None, seed: int
) -> dict:
    """`saelab.evaluation.supervised.evaluate` on prompts of this seed; dictionaries: supervised
    and, with `full`, SAEs. where: task, hook and positions."""
    task, hook, positions = where
    metric = supervised.TASKS[task].metric
    rows = (
        supervised.rows(task, plan.fit, 2 * seed),
        supervised.rows(task, plan.test, 2 * seed + 1, twins=True),
    )
    fit, test = (tasks.build(task, model, part, metric) for part in rows)
    site = supervised.visit(model, hook, fit, test, positions)
    dictionaries = {
        "supervised": sites.supervised(site),
        "supervised_mean": sites.supervised(site, "mean"),
    }
    if full is not None:
        on_task, frozen = _on_task(plan, site, full, seed)
        saes = {"task": on_task, "full": full, "frozen": frozen}
        dictionaries |= {name: sites.everywhere(site, sae) for name, sae in saes.items()}
    return supervised.evaluate(site, dictionaries, seed=seed, changes=(MANY,))


def _on_task(plan: Plan, site: sites.Site, like: SAE, seed: int) -> tuple[SAE, SAE]:
    """Two SAEs fitted to the task's activations alone: an ordinary one, and one whose decoder stays
    random."""
    pooled_ND = torch.cat(list(site.fit_acts.values()))
    draw = torch.Generator().manual_seed(seed)
    batches = [
        pooled_ND[torch.randint(len(pooled_ND), (512,), generator=draw)] for _ in range(plan.steps)
    ]
    place = {"seed": seed, "device": str(pooled_ND.device)}
    config = Config(features=plan.features, tokens=512 * plan.steps, batch=512, lr=2e-3, **place)
    run = Run(config, pooled_ND.cpu(), pooled_ND.cpu())
    for x_BD in batches:
        run.step(x_BD, x_BD)
    trained = run.final()
    assert isinstance(trained, SAE)  # of one rank it is never None
    l0 = controls.l0(like, pooled_ND)
    how = {"n_steps": plan.steps, "rate": 3e-3, "seed": seed, "l0": l0}
    return trained.to(pooled_ND), controls.frozen_decoder(like, batches, **how)


def _agreement(where: str, measured: list[dict], with_saes: bool) -> list[Claim]:
    def of(name: str, changes: int = compare.HEADLINE) -> np.ndarray:
        rows = (
            row
            for result in measured
            for row in result["edits"]
            if (row["dictionary"], row["changes"]) == (name, changes)
        )
        return np.array([row["edit_agreement"]["value"] for row in rows])

    best = of("supervised")
    agreements = [
        seeds_claim(
            f"edit agreement of the supervised dictionary, {where}", "above 0.8", best, above=0.8
        )
    ]
    if with_saes:
        k = compare.HEADLINE
        task, full, frozen = of("task"), of("full"), of("frozen")
        agreements += [
            seeds_claim(
                f"task SAE less supervised, {k} changes, {where}", "worse", task - best, below=0.0
            ),
            seeds_claim(
                f"full-distribution SAE less supervised, {k} changes, {where}",
                "notably worse",
                full - best,
                below=0.0,
            ),
            seeds_claim(
                f"full-distribution SAE less task SAE, {k} changes, {where}",
                "worse",
                full - task,
                below=0.0,
            ),
            _on_par(
                f"frozen decoder less full-distribution SAE, {k} changes, {where}", frozen - full
            ),
            _on_par(
                f"frozen decoder less full-distribution SAE, {MANY} changes, {where}",
                of("frozen", MANY) - of("full", MANY),
            ),
            seeds_claim(
                f"full-distribution SAE, {MANY} changes less {k}, {where}",
                "needs 32",
                of("full", MANY) - full,
                above=0.0,
            ),
        ]
    return agreements


def _on_par(claim: str, differences_S: np.ndarray) -> Claim:
    """Holds if the interval lies within ON_PAR of 0, fails if it lies wholly outside."""
    ours = over_seeds(differences_S)
    holds = within(ours, -ON_PAR, ON_PAR) if len(differences_S) >= SEEDS else None
    return Claim(claim, f"on par (within {ON_PAR})", ours, holds)


def _occlusion(settings: Settings, plan: Plan, seeds: Sequence[int]) -> list[Claim]:
    """The toy at three scales of the stronger attribute, as shares of its values that are found."""
    scales, n_values = (1.0, 0.5, 0.25), plan.toy.get("n_values", 50)
    occlusions = []
    for number, seed in enumerate(seeds):
        settings.progress("occlusion", number, plan.seeds)
        occlusions.append([toys.occlusion(scale, seed=seed, **plan.toy) for scale in scales])
    shares = np.array(occlusions) / n_values
    rising = np.diff(shares[:, :, 1], axis=1).min(1)
    return [
        seeds_claim(
            "occlusion: share of the high-norm values found",
            "above 0.9",
            shares[:, 0, 0],
            above=0.9,
        ),
        seeds_claim(
            "occlusion: share of the low-norm values found less high-norm",
            "below 0",
            -np.subtract(*shares[:, 0].T),
            below=0.0,
        ),
        seeds_claim(
            "occlusion: least rise of low-norm values found as the other shrinks",
            "above 0",
            rising,
            above=0.0,
        ),
    ]


def _over_splitting(seeds: Sequence[int]) -> list[Claim]:
    """L1 loss of 1000 random latents less that of the two that name the mixture's halves."""
    splittings = []
    for penalty in (1, 2, 3):
        losses = [toys.over_splitting(penalty, seed=seed) for seed in seeds]
        gaps = np.array([loss.random - loss.two for loss in losses])
        splittings.append(
            seeds_claim(
                f"over-splitting: loss of random latents less two ideal ones, L1 {penalty}",
                "below 0",
                gaps,
                below=0.0,
            )
        )
    return splittings
