"""What a grid trains and scores, cell by cell.

Held-out tokens are split: the first part chooses the rate, the second alone is scored. On either a
factor of all inference levels lets k pairs per token pass, as those of another part's documents let
3% more or less pass. The document at the cut may lie in both. Runs are kept in the work folder:
killed and started again, a grid goes on.

Shapes: N tokens, D width.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from saelab import SAE
from saelab.activations import Cache

from .. import recipes
from ..config import Config
from . import data
from .claims import Settings
from .compare import HOOK
from .grid import Size, Study
from .measure import at_l0, quality, tokens


def language_base(settings: Settings, recipe: str, size: Size, gradients: bool = False) -> Config:
    """A shipped recipe on the bundled model's cache, which papers share."""
    asked = settings, "stdlib", [HOOK], size.captured, gradients, size.held_out
    cache = data.cache(*asked)
    return replace(recipes.read(recipe), cache=str(cache), hook=HOOK)


def measured(settings: Settings, study: Study, size: Size) -> list[dict[str, Any]]:
    """The runs of a study, a mapping each: where, tokens, features, method, times, lr, seed, and
    the numbers."""
    rows = []
    for n_tokens in size.tokens:
        for n_features in size.features:
            base = replace(
                study.base,
                tokens=n_tokens,
                features=n_features,
                batch=size.batch,
                calibration=size.calibration,
            )
            at = {"where": study.where, "tokens": n_tokens, "features": n_features}
            rows += [at | row for row in _cell(settings, study, study.methods(base), size)]
    return rows


def _cell(
    settings: Settings, study: Study, methods: Mapping[str, Config], size: Size
) -> Iterator[dict[str, Any]]:
    """The runs at one number of tokens and width."""
    hook = Cache(study.base.cache).resolve(study.base.hook or "")
    held_out = tokens(study.base.cache, hook, "held_out", 2 * size.apart)
    apart_ND, scored_ND = held_out[: size.apart], held_out[size.apart :]
    width, first = held_out.shape[1], settings.seed
    asked = {
        (name, times, first): _at(config, times, first, width)
        for name, config in methods.items()
        for times in size.times
    }
    saes = _trained(settings, asked, apart_ND)
    for name, config in methods.items():
        best = min(
            size.times, key=lambda times, name=name: quality(saes[name, times, first], apart_ND).fvu
        )
        for seed in range(first + 1, first + size.n_seeds):
            asked[name, best, seed] = _at(config, best, seed, width)
    saes |= _trained(settings, {key: c for key, c in asked.items() if key not in saes}, apart_ND)
    saes = {key: at_l0(sae, scored_ND, asked[key].k) for key, sae in saes.items()}
    more = study.more(list(saes.values()))
    for i, ((name, times, seed), sae) in enumerate(saes.items()):
        numbers = quality(sae, scored_ND)._asdict()
        numbers |= {what: float(values[i]) for what, values in more.items()}
        lr = asked[name, times, seed].lr
        yield {"method": name, "times": times, "lr": lr, "seed": seed, **numbers}


def _at(config: Config, times: float, seed: int, width: int) -> Config:
    """A configuration at a multiple of its default rate."""
    default = replace(config, lr=None).learning_rate(width)
    return replace(config, lr=float(f"{times * default:.4g}"), seed=seed)


def _trained(
    settings: Settings, asked: Mapping[tuple, Config], apart_ND: Tensor
) -> dict[tuple, SAE]:
    """The SAEs of configurations, their levels reset on tokens [N, D] kept apart."""
    folders = data.runs(settings, list(asked.values()))
    return {
        key: at_l0(data.sae(settings, folder), apart_ND, asked[key].k)
        for key, folder in zip(asked, folders, strict=True)
    }
