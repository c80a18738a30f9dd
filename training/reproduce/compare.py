"""Methods compared fairly: the same tokens and seeds, the same search for the learning rate, the
same inference L0.

Shapes: S seeds, K values of k.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from saelab import SAE

from .. import recipes
from ..config import Config
from . import data
from .claims import Settings
from .measure import Quality, quality, tokens

HOOK = "blocks.1.hook_resid_post"
SEARCH_SEED = 1000  # added to the seed of the runs that choose a learning rate
REACH = 1.25  # how far beyond the measured L0s a value is still read off


class Plan(NamedTuple):
    """How much is measured. target: the L0 at which methods are compared, between the ks. small:
    what it changes in a recipe."""

    ks: tuple[int, ...]
    target: float
    rates: tuple[float, ...]
    n_seeds: int
    captured: int
    held_out: int
    small: dict[str, int]


FULL = Plan((24, 40), 32.0, (2e-3, 4e-3, 8e-3), 5, 550_000, 40_000, {})
SMALL = {"features": 256, "tokens": 24_576, "batch": 1024, "calibration": 16_384}
QUICK = Plan((12, 20), 16.0, (4e-3,), 2, 40_000, 4_000, SMALL)


class Comparison(NamedTuple):
    """What was trained: per method its configuration, S x K SAEs (seed by seed, ks ascending), and
    their held-out quality."""

    plan: Plan
    configs: dict[str, Config]
    saes: dict[str, list[SAE]]
    qualities: dict[str, list[Quality]]

    def at_target(self, method: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
        """[S]: one value per SAE of a method, read off at the target L0."""
        return read_off(self.plan, [q.l0 for q in self.qualities[method]], values)

    def gain(self, name: str, method: str, over: str) -> np.ndarray:
        """[S]: `name` of Quality at the target L0, of a method less that of another; seed by
        seed."""
        mine, theirs = (
            self.at_target(m, [getattr(q, name) for q in self.qualities[m]]) for m in (method, over)
        )
        return mine - theirs


def language(settings: Settings, recipe: str) -> tuple[Plan, Config]:
    """The plan of the full or quick form, and a shipped recipe on its cache, which all papers
    share."""
    plan = QUICK if settings.quick else FULL
    cache = data.cache(settings, "stdlib", [HOOK], plan.captured, gradients=True)
    return plan, replace(recipes.read(recipe), cache=str(cache), hook=HOOK, **plan.small)


def baseline(recipe: Config) -> Config:
    """TopK with the recipe's cache, size, pairs per token and tokens."""
    shared = ("cache", "hook", "features", "k", "tokens", "batch", "calibration", "lr")
    return Config(sparsify="topk", **{name: getattr(recipe, name) for name in shared})


def compare(settings: Settings, plan: Plan, methods: Mapping[str, Config]) -> Comparison:
    """Search each method's learning rate, train its S x K SAEs, measure them on its cache's
    held-out tokens."""
    configs = _tuned(settings, plan, methods)
    grid = [(settings.seed + seed, k) for seed in range(plan.n_seeds) for k in plan.ks]
    asked = [replace(config, seed=seed, k=k) for config in configs.values() for seed, k in grid]
    loaded = [data.sae(settings, folder) for folder in data.runs(settings, asked)]
    saes = {name: loaded[i * len(grid) : (i + 1) * len(grid)] for i, name in enumerate(configs)}
    qualities = {}
    for n_done, (name, config) in enumerate(configs.items()):
        settings.progress("measure", n_done + 1, len(configs))
        qualities[name] = [quality(sae, _tokens(config, "held_out", plan)) for sae in saes[name]]
    return Comparison(plan, configs, saes, qualities)


def _tuned(settings: Settings, plan: Plan, methods: Mapping[str, Config]) -> dict[str, Config]:
    """Each method at the best of the plan's learning rates: lowest FVU, inference form, training
    tokens, at the first k."""
    if len(plan.rates) == 1:
        return {name: replace(config, lr=plan.rates[0]) for name, config in methods.items()}
    trials = {
        (name, rate): replace(config, lr=rate, k=plan.ks[0], seed=settings.seed + SEARCH_SEED)
        for name, config in methods.items()
        for rate in plan.rates
    }
    folders = data.runs(settings, list(trials.values()))
    fvu = {
        key: quality(data.sae(settings, folder), _tokens(trials[key], "train", plan)).fvu
        for key, folder in zip(trials, folders, strict=True)
    }
    best = {name: min(plan.rates, key=lambda rate, name=name: fvu[name, rate]) for name in methods}
    return {name: replace(config, lr=best[name]) for name, config in methods.items()}


def _tokens(config: Config, split: str, plan: Plan) -> Tensor:
    assert config.hook
    return tokens(config.cache, config.hook, split, plan.held_out)


def read_off(plan: Plan, l0s: Sequence[float], values: Sequence[float] | np.ndarray) -> np.ndarray:
    """[S]: values [S x K] at the plan's target L0, on a line in log L0 through each seed's K
    points.

    NaN for a seed whose measured L0s leave the target more than a factor REACH outside.
    """
    log_SK, values_SK = (np.reshape(v, (-1, len(plan.ks))) for v in (np.log(l0s), values))
    slack, wanted = np.log(REACH), np.log(plan.target)
    lines_S = [
        np.polyval(np.polyfit(x, y, 1), wanted) for x, y in zip(log_SK, values_SK, strict=True)
    ]
    near_S = (log_SK.min(1) - slack <= wanted) & (wanted <= log_SK.max(1) + slack)
    return np.where(near_S, lines_S, np.nan)
