"""Do features align with concepts that nobody told them, better than label-free alternatives do?
Stevens et al. 2025, "Towards Open-Ended Visual Scientific Discovery with Sparse Autoencoders"
(arXiv 2511.17735), here on the bundled language model and kinds of Python tokens.

The paper's claim is of vision models and of k-means, PCA and semi-NMF; here all of our label-free
dictionaries are asked, at equal L0 where they have a choice. Shapes: S seeds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from saelab.activations import Cache
from saelab.dictionaries.methods import METHODS
from saelab.evaluation import concepts
from saelab.evaluation.alignment import Alignment
from saelab.evaluation.concepts import Positions
from saelab.evaluation.rivals import WIDTHS
from saelab.sparsify import title

from ..config import Config
from . import data
from .claims import Claim, Settings, seeds_claim
from .compare import HOOK

SAES: dict[str, dict] = {
    "TopK": {"sparsify": "topk"},
    "Matryoshka": {"sparsify": "topk", "loss": "matryoshka"},
    "AbsTopK": {"sparsify": "abstopk"},
}


class Plan(NamedTuple):
    """How much is measured."""

    seeds: int
    captured: int
    tokens: int
    batch: int
    features: int
    k: int
    positions: tuple[int, int]
    """labelled ones, to choose features on and to score them"""
    rivals: tuple[str, ...] = tuple(METHODS)
    few: tuple[str, ...] = ()
    """rivals of the first `few_seeds` seeds alone, as their fits cost most"""
    few_seeds: int = 2


FULL = Plan(5, 300_000, 150_000, 2048, 512, 16, (6_000, 4_000))
QUICK = Plan(2, 40_000, 30_000, 1024, 256, 8, (4_000, 2_000), ("pca", "neurons", "k-means"))


def claims(settings: Settings) -> list[Claim]:
    """Mean average precision of each kind of SAE less that of each rival, seed by seed; and less
    that of shuffled labels."""
    plan = QUICK if settings.quick else FULL
    folder = data.cache(settings, "stdlib", [HOOK], plan.captured)
    cache, tokenizer = Cache(folder), data.model(settings).tokenizer
    splits = [
        concepts.of_text(cache, HOOK, tokenizer, split, n)
        for split, n in zip(("train", "held_out"), plan.positions, strict=True)
    ]
    seeds = range(settings.seed, settings.seed + plan.seeds)
    by_seed = list(measured(settings, plan, cache, splits, seeds))
    return judged({name: [one[name] for one in by_seed if name in one] for name in by_seed[0]})


def measured(
    settings: Settings,
    plan: Plan,
    cache: Cache,
    splits: Sequence[Positions],
    seeds: Iterable[int],
    hook: str = HOOK,
) -> Iterator[dict[str, Alignment]]:
    """For each seed in turn the alignment of every dictionary by its name, trained on a hook point
    of a cache. splits: positions to choose features on, and others to score them."""
    wanted = configs(plan, str(cache.path), cache.width(hook), hook)
    few = {title(name) for name in plan.few}
    for number_of_seed, seed in enumerate(seeds):
        aligned: dict[str, Alignment] = {}
        for number, (name, config) in enumerate(wanted.items()):
            if name in few and number_of_seed >= plan.few_seeds:
                continue
            settings.progress(f"seed {seed}, {name}", number, len(wanted))
            (run,) = data.runs(settings, [replace(config, seed=seed)])
            sae = {name: data.sae(settings, run)}
            # What chance gives is asked of the SAEs alone: it costs as much as the answer.
            options = {"resamples": 2, "shuffles": int(name in SAES)}
            aligned[name] = concepts.table(sae, *splits, seed=seed, **options, neurons=False)[name]
        yield aligned


def configs(plan: Plan, cache: str, width: int, hook: str = HOOK) -> dict[str, Config]:
    """How every dictionary is made: SAEs, then rivals with as many features, or fewer where their
    fit costs more (see `rivals`)."""
    base = Config(cache=cache, hook=hook, features=plan.features, k=plan.k)
    base = replace(base, tokens=plan.tokens, batch=plan.batch)
    saes = {name: replace(base, **fields) for name, fields in SAES.items()}
    sized = {name: min(plan.features, WIDTHS.get(name, plan.features) * width) for name in METHODS}
    rivals = {
        title(name): replace(base, dictionary=name, features=sized[name])  # type: ignore[arg-type]
        for name in plan.rivals
    }
    return saes | rivals


def judged(aligned: Mapping[str, Sequence[Alignment]]) -> list[Claim]:
    """The claims, of numbers by dictionary and seed; a difference is of the seeds that both
    dictionaries have, the first ones."""
    values = {name: [one.precision.value or 0.0 for one in each] for name, each in aligned.items()}
    nulls = {name: [one.precision.null or 0.0 for one in each] for name, each in aligned.items()}
    rows = []
    for name in SAES:
        above = [a - b for a, b in zip(values[name], nulls[name], strict=True)]
        what = f"{name}: mean average precision less that of shuffled labels"
        rows.append(seeds_claim(what, "above chance", above, above=0.0))
    for name in SAES:
        for rival in (other for other in values if other not in SAES):
            gain = [a - b for a, b in zip(values[name], values[rival], strict=False)]
            what = f"{name} less {rival}: mean average precision"
            rows.append(seeds_claim(what, "better aligned with concepts", gain, above=0.0))
    return rows
