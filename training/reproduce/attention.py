"""SAEs of attention outputs: Kissane, Krzyzanowski, Bloom, Conmy and Nanda 2024, "Interpreting
Attention Layer Outputs with Sparse Autoencoders" (arXiv 2406.17759).

The paper's claims: such SAEs keep most of a layer's effect on the loss; at least nine heads of ten
are about several things; features of induction heads read what followed the same token before, and
of two such heads one wants a long matching prefix. Theirs is GPT-2 small, judged by people. Ours is
the bundled model, every layer, judged by the tokens that features fire on. What recursive direct
attribution names is set against what ablation does, which the paper leaves open.

Shapes: S seeds, L layers, H heads, K prefix lengths, G features that fire, N parts.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from saelab import SAE
from saelab.activations import Cache
from saelab.analysis.attention import kinds, polysemanticity, tracing, writers
from saelab.sparsify import Choice
from saelab.statistics import over_seeds

from ..config import Config
from . import data
from .claims import SEEDS, Claim, Settings, judge, seeds_claim, within
from .measure import added_loss

INDUCTION = "induction"
SAID_BEFORE = "after the same token"  # of writers.PLACES: where an induction head looks


class Plan(NamedTuple):
    """How much is measured."""

    seeds: int
    captured: int
    tokens: int
    """training tokens of each SAE"""
    features: int
    k: int
    batch: int
    spliced: int
    """held-out tokens of losses"""
    read: int
    """held-out tokens of what features fire on and where they come from"""
    sequences: int
    """of random tokens, that tell kinds of heads"""
    traced: int
    """firings that are taken apart"""


FULL = Plan(SEEDS, 550_000, 500_000, 1024, 16, 1024, 20_000, 30_000, kinds.SEQUENCES, 200)
QUICK = Plan(2, 40_000, 24_576, 256, 8, 1024, 2_000, 3_000, 16, 20)
SCORE, POLYSEMANTIC = 0.76, 0.9  # what the paper found at least
SEVERAL = 2.0  # themes: the effective number of kinds of tokens
BY_CHANCE = 0.025  # of heads, by the bound of `polysemanticity.Head.alike`
RISE, STEADY = 0.4, 0.1  # of an induction score: from below 0.3 to above 0.7; hardly any


def claims(settings: Settings) -> list[Claim]:
    """Loss kept by layer, heads about several things, features of induction heads, prefixes that
    these want, and traced causes against ablations."""
    plan = QUICK if settings.quick else FULL
    model = data.model(settings)
    n_layers = model.cfg.n_layers
    hooks = [f"blocks.{layer}.attn.hook_z" for layer in range(n_layers)]
    before = f"blocks.{n_layers - 2}.hook_resid_post"
    cache = Cache(data.cache(settings, "bundled-mix", [*hooks, before], plan.captured))
    by_hook = trained(settings, plan, cache, [*hooks, before])
    residual_S = by_hook.pop(before)
    found = [_score(plan, model, cache, hook, saes) for hook, saes in by_hook.items()]
    found += _polysemantic(settings, plan, cache, by_hook)
    found += _induction(settings, plan, model, cache, by_hook)
    return [*found, _traced(settings, plan, model, cache, by_hook[hooks[-1]], residual_S)]


def trained(
    settings: Settings, plan: Plan, cache: Cache, hooks: Sequence[str]
) -> dict[str, list[SAE]]:
    """An SAE of each seed on every hook."""
    seeds = range(settings.seed, settings.seed + plan.seeds)
    sizes = {"features": plan.features, "k": plan.k, "tokens": plan.tokens, "batch": plan.batch}
    base = Config(cache=str(cache.path), **sizes)  # type: ignore[arg-type]
    asked = [replace(base, hook=hook, seed=seed) for hook in hooks for seed in seeds]
    saes = [data.sae(settings, folder) for folder in data.runs(settings, asked)]
    return {
        hook: saes[number * plan.seeds : (number + 1) * plan.seeds]
        for number, hook in enumerate(hooks)
    }


def _score(plan: Plan, model: Any, cache: Cache, hook: str, saes: list[SAE]) -> Claim:
    """The share of what zero ablation adds to the loss that splicing the SAE in does not."""
    zeros = {name: torch.zeros_like(part) for name, part in saes[0].state_dict().items()}
    nothing = SAE.of(zeros, Choice(plan.k))
    *added_S, ablated = added_loss([*saes, nothing], cache, model, hook, plan.spliced)
    kept_S = [1 - added / ablated for added in added_S]
    what = f"{hook}: share kept of what the layer saves of the loss (zero ablation)"
    return seeds_claim(what, "0.76 to 0.99", kept_S, above=SCORE)


def _polysemantic(
    settings: Settings, plan: Plan, cache: Cache, by_hook: dict[str, list[SAE]]
) -> list[Claim]:
    """The share of all heads whose strongest features are about several kinds of tokens, and of
    those whose features have more in common than random ones."""
    several_S, alike_S = [], []
    for number in range(plan.seeds):
        settings.progress("what heads are about", number, plan.seeds)
        saes = [saes[number] for saes in by_hook.values()]
        rows = polysemanticity.of_model(saes, cache, plan.read, settings.seed + number)
        heads = [head for of_layer in rows.values() for head in of_layer]
        several_S.append(np.mean([head.themes >= SEVERAL for head in heads]))
        alike_S.append(np.mean([head.alike for head in heads]))
    several = "heads whose ten strongest features are about two kinds of tokens or more"
    alike = "heads whose ten strongest features share more tokens than random ones do (0.025)"
    return [
        seeds_claim(several, "at least 0.9 are polysemantic", several_S, above=POLYSEMANTIC),
        seeds_claim(alike, "not measured", alike_S, above=BY_CHANCE),
    ]


def _induction(
    settings: Settings, plan: Plan, model: Any, cache: Cache, by_hook: dict[str, list[SAE]]
) -> list[Claim]:
    """Of the layer with most heads that do induction: what their features read, and how the heads'
    scores rise with the prefix."""
    heads_L = [_called(model, plan, layer, settings.seed) for layer in range(len(by_hook))]
    layer = max(range(len(heads_L)), key=lambda layer: len(heads_L[layer]))
    heads = heads_L[layer]
    if not heads:
        return []
    gain_S = []
    for number, sae in enumerate(list(by_hook.values())[layer]):
        settings.progress("what induction heads write", number, plan.seeds)
        gain_S.append(_read_before(plan, model, cache, sae, heads))
    reads = seeds_claim(
        f"features of layer {layer}'s {len(heads)} induction heads: share read behind the same "
        "token before, less that of the layer's other features",
        "induction features",
        gain_S,
        above=0.0,
    )
    return [reads, *_prefixes(settings, plan, model, layer, heads)]


def _called(model: Any, plan: Plan, layer: int, seed: int) -> list[int]:
    """The heads of a layer that do induction on random tokens."""
    both = kinds.sequences(model, plan.sequences, kinds.PART, seed)
    patterns = [kinds.patterns(model, tokens_NT, layer) for tokens_NT in both]
    measured = kinds.measure(patterns[0], patterns[1], kinds.PART, seed)
    return [one.head for one in measured if INDUCTION in one.called]


def _read_before(plan: Plan, model: Any, cache: Cache, sae: SAE, heads: list[int]) -> float:
    """How much more of what these heads' features read lies behind the same token before."""
    n_heads = model.cfg.n_heads
    texts = writers.contexts(model, sae, cache, plan.read)
    written = writers.write(sae, texts, n_heads, model.cfg.d_vocab)
    features_G, head_G, _ = writers.leading(written, n_heads)
    places_GP = written.places_FP[features_G]
    share_G = places_GP[:, list(writers.PLACES).index(SAID_BEFORE)] / places_GP.sum(1)
    theirs_G = torch.isin(head_G, torch.tensor(heads))
    return float(share_G[theirs_G].mean() - share_G[~theirs_G].mean())


def _prefixes(
    settings: Settings, plan: Plan, model: Any, layer: int, heads: list[int]
) -> list[Claim]:
    """How much more the heads attend to what followed a prefix of 8 tokens than of 1: the head that
    gains most, and the one that gains least."""
    rise_SH, lengths = [], kinds.PREFIXES
    for number in range(plan.seeds):
        seed = settings.seed + number
        score_KH = kinds.by_prefix(model, layer, lengths, plan.sequences, seed).mean(1)
        rise_SH.append((score_KH[-1] - score_KH[0])[heads].tolist())
    order = np.mean(rise_SH, 0).argsort()
    least, most = ([row[at] for row in rise_SH] for at in (order[0], order[-1]))
    what = f"induction score with {lengths[-1]} tokens of prefix less that with {lengths[0]}"
    steady = over_seeds(least)
    decided = within(steady, -STEADY, STEADY) if plan.seeds >= SEEDS else None
    return [
        seeds_claim(
            f"{what}, head {layer}.{heads[order[-1]]}",
            "from below 0.3 to above 0.7",
            most,
            above=RISE,
        ),
        Claim(f"{what}, head {layer}.{heads[order[0]]}", "about 0.7 throughout", steady, decided),
    ]


def _traced(
    settings: Settings, plan: Plan, model: Any, cache: Cache, saes: list[SAE], others: list[SAE]
) -> Claim:
    """The correlation of what traced residual features bring with what taking them out does."""
    correlation_S = []
    for number, (sae, residual) in enumerate(zip(saes, others, strict=True)):
        settings.progress("traced causes", number, plan.seeds)
        seed = settings.seed + number
        brought_N, lost_N = tracing.tested(model, cache, sae, residual, plan.traced, seed)
        correlation_S.append(float(np.corrcoef(brought_N, lost_N)[0, 1]))
    ours = over_seeds(correlation_S)
    what = "what a traced residual feature brings, with what its ablation takes: correlation"
    decided = judge(ours, above=0.5) if plan.seeds >= SEEDS else None
    return Claim(f"{what} above 0.5", "not measured", ours, decided)
