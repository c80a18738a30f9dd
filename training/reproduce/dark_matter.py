"""Engels, Smith and Tegmark, Decomposing the Dark Matter of Sparse Autoencoders (arXiv 2410.14670),
on the bundled model.

The paper measures Gemma Scope SAEs of Gemma-2-9B; here SAEs of four widths are trained on one
layer, and one on the layer before. Shapes: N tokens, D width.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from saelab import SAE
from saelab.activations import Cache
from saelab.analysis.dark_matter import reduce
from saelab.analysis.dark_matter.error_cache import write_errors
from saelab.analysis.dark_matter.report import analyse
from saelab.statistics import Estimate, over_seeds
from saelab.statistics.sums import of_tokens

from ..config import Config
from . import data, planted
from .claims import Claim, Settings, judge, within

HOOK, EARLIER = "blocks.2.hook_resid_post", "blocks.1.hook_resid_post"
K = 32


class Sizes(NamedTuple):
    """captured, trained: tokens; widths: dictionary sizes; fitted, scored: tokens of the report;
    pursued: of either reduction."""

    captured: int
    trained: int
    widths: tuple[int, ...]
    fitted: int
    scored: int
    pursued: int


FULL = Sizes(1_000_000, 2_000_000, (512, 1024, 2048, 4096), 500_000, 40_000, 20_000)
QUICK = Sizes(80_000, 60_000, (128, 256, 512, 1024), 30_000, 3_000, 5_000)


class Scored(NamedTuple):
    """Tokens of two hooks: x and z [N, D] at HOOK and EARLIER, and their documents [N]."""

    x: Tensor
    z: Tensor
    owners: Tensor


def claims(settings: Settings) -> list[Claim]:
    """Every claim of the abstract that can be measured, on the widest SAE where it is about one."""
    sizes = QUICK if settings.quick else FULL
    folder = data.cache(settings, "stdlib", [EARLIER, HOOK], sizes.captured)
    base = Config(
        cache=str(folder), hook=HOOK, k=K, tokens=sizes.trained, lr=2e-3, seed=settings.seed
    )
    configs = [replace(base, features=width) for width in sizes.widths]
    *runs, earlier = data.runs(
        settings, [*configs, replace(base, features=sizes.widths[-1], hook=EARLIER)]
    )
    saes = {
        f"F={width}": data.sae(settings, run) for width, run in zip(sizes.widths, runs, strict=True)
    }
    cache = Cache(folder)
    report = analyse(
        saes,
        cache,
        data.model(settings),
        n_tokens=sizes.fitted,
        n_held_out=sizes.scored,
        seed=settings.seed,
        progress=lambda done: settings.progress("decompose", done, sizes.fitted + sizes.scored),
    )
    widest = saes[f"F={sizes.widths[-1]}"]
    return [
        *_linearity(report["runs"][-1]),
        *_scaling(report["scaling"]),
        *_reductions(widest, data.sae(settings, earlier), cache, sizes.pursued, settings.seed),
        _trained_on_parts(settings, widest, cache, base, sizes),
        *_planted(settings.seed),
    ]


def _linearity(run: dict) -> list[Claim]:
    """What is linear in x, and whether the loss follows the squared length."""
    vector, norm, proportion = (
        Estimate.from_dict(run[name]) for name in ("linear_r2", "norm_r2", "ce_proportion")
    )
    untrained = Estimate.from_dict(run["controls"]["random_init"]["norm_r2"])
    return [
        Claim(
            "R2 of the error vector from x",
            "about half (0.4 to 0.6)",
            vector,
            within(vector, 0.4, 0.6),
        ),
        Claim("R2 of its squared norm from x", "more than 0.9", norm, judge(norm, above=0.9)),
        Claim("the same for an SAE never trained", "not reported", untrained, None),
        Claim(
            "nonlinear error: share of the loss over share of the squared error",
            "proportional (0.8 to 1.25)",
            proportion,
            within(proportion, 0.8, 1.25),
        ),
    ]


def _scaling(scaling: dict) -> list[Claim]:
    """Whether large SAEs fail where small ones do, and what stays as the width grows."""
    (law,) = scaling["laws"]
    first, last = f"F={law['sizes'][0]}", f"F={law['sizes'][-1]}"
    (told,) = [pair for pair in scaling["norms"] if (pair["from"], pair["to"]) == (first, last)]
    r2, added, ratio = (
        Estimate.from_dict(field)
        for field in (told["r2"], told["added"], law["fvu_nonlinear_ratio"])
    )
    return [
        Claim(
            f"R2 of error norms, {first} to {last}",
            "remarkably predictable (above 0.5)",
            r2,
            judge(r2, above=0.5),
        ),
        Claim(
            "of the rest, explained by nonlinear error norms",
            "above 0",
            added,
            judge(added, above=0),
        ),
        Claim(
            f"nonlinear FVU, {last} over {first}",
            "constant in width (0.8 to 1.25)",
            ratio,
            within(ratio, 0.8, 1.25),
        ),
    ]


def _scored(cache: Cache, n_tokens: int) -> Scored:
    """The first held-out tokens at both hooks."""
    x_ND, z_ND = (
        torch.cat([chunk.x for chunk in cache.counted(hook, "held_out", n_tokens)])
        for hook in (HOOK, EARLIER)
    )
    owners = [chunk.documents for chunk in cache.counted(HOOK, "held_out", n_tokens)]
    return Scored(x_ND, z_ND, torch.cat(owners))


def _reductions(sae: SAE, earlier: SAE, cache: Cache, n_tokens: int, seed: int) -> list[Claim]:
    """What pursuit and the earlier layer's reconstruction take off the nonlinear error."""
    batch, scored = next(cache.batches([HOOK, EARLIER], n_tokens, seed)), _scored(cache, n_tokens)
    pursuit = reduce.by_pursuit(sae, batch[HOOK], scored.x)
    z_hats = [reduce.reconstruct(earlier, z) for z in (batch[EARLIER], scored.z)]
    map = reduce.by_earlier(sae, (batch[HOOK], z_hats[0]), (scored.x, z_hats[1]))
    both = {"before": pursuit.before, "pursuit": pursuit.after, "map": map.after}
    more = of_tokens(
        scored.owners, both, lambda sums: (sums["pursuit"] - sums["map"]) / sums["before"], seed
    )
    shares = [reduction.share(scored.owners, seed) for reduction in (pursuit, map)]
    names = (
        "pursuit lowers the nonlinear error by",
        "a map from the earlier layer's reconstruction by",
        "the map more than pursuit by",
    )
    theirs = ("very slightly (above 0)", "above 0", "above 0")
    rows = zip(names, theirs, (*shares, more), strict=True)
    return [Claim(name, said, ours, judge(ours, above=0)) for name, said, ours in rows]


def _trained_on_parts(
    settings: Settings, sae: SAE, cache: Cache, base: Config, sizes: Sizes
) -> Claim:
    """SAEs of one shape trained on the linear and on the nonlinear error: the difference of their
    held-out FVUs."""
    name = data.digest(cache.path.name, sae.origin.seed, sae.n_features, sizes.trained)
    folder = settings.work / f"errors-{name}"
    if not (folder / "manifest.json").exists():
        total = cache.n_tokens() + cache.n_tokens("held_out")
        write_errors(
            sae,
            cache,
            folder,
            sizes.fitted,
            settings.seed,
            lambda n: settings.progress("write errors", n, total),
        )
    errors = Cache(folder)
    parts = [hook for hook in errors.hooks if not hook.endswith(".error")]
    configs = [
        replace(base, cache=str(folder), hook=hook, features=sizes.widths[0]) for hook in parts
    ]
    columns, owners = {}, torch.zeros(0)
    for hook, run in zip(parts, data.runs(settings, configs), strict=True):
        x, owners, _ = next(errors.counted(hook, "held_out"))
        missed = (x - reduce.reconstruct(data.sae(settings, run), x).cpu()).square().sum(1)
        columns[hook] = missed
        columns[f"{hook} spread"] = (x - x.mean(0)).square().sum(1)
    linear, nonlinear = parts
    ours = of_tokens(
        owners,
        columns,
        lambda s: s[nonlinear] / s[f"{nonlinear} spread"] - s[linear] / s[f"{linear} spread"],
        settings.seed,
        null=0.0,
    )
    claim = "FVU of an SAE trained on the nonlinear error less that of one on the linear"
    return Claim(claim, "worse (above 0)", ours, judge(ours, above=0))


def _planted(seed: int) -> list[Claim]:
    """Whether dense noise leaves the nonlinear error alone, as the paper's synthetic test has it:
    only for a signal of low rank.

    With a signal of full rank and dense noise of its own size, half of the noise's energy is not
    linear in x: the ratio is 1.5.
    """
    rows = []
    for name, rank in (
        ("full rank", planted.WIDTH),
        ("rank d/4", planted.WIDTH // 4),
        ("rank d/32", planted.WIDTH // 32),
    ):
        ours = over_seeds([planted.nonlinear_ratio(rank, seed + i) for i in range(planted.SEEDS)])
        claim = f"planted signal of {name}: nonlinear error with dense noise over without"
        rows.append(Claim(claim, "flat (0.95 to 1.05)", ours, within(ours, 0.95, 1.05)))
    return rows
