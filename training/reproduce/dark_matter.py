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
from saelab.statistics.sums import interval

from ..config import Config
from . import data, planted
from .claims import Claim, Settings, judge, over_seeds

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
    saes = {f"F={width}": SAE.load(run) for width, run in zip(sizes.widths, runs, strict=True)}
    cache = Cache(folder)
    report = analyse(
        saes, cache, data.model(), n_tokens=sizes.fitted, n_held_out=sizes.scored, seed=settings.seed,
        progress=lambda done: settings.progress("decompose", done, sizes.fitted + sizes.scored),
    )  # fmt: skip
    widest = saes[f"F={sizes.widths[-1]}"]
    return [
        *_linearity(report["runs"][-1]),
        *_scaling(report["scaling"]),
        *_reductions(widest, SAE.load(earlier), cache, sizes.pursued, settings.seed),
        _trained_on_parts(settings, widest, cache, base, sizes),
        *_planted(settings.seed),
    ]


def _within(field: dict, low: float, high: float) -> bool | None:
    """Whether an interval lies within two bounds; None where it straddles one."""
    above, below = (
        judge(field["low"], field["high"], above=low),
        judge(field["low"], field["high"], below=high),
    )
    return False if False in (above, below) else None if None in (above, below) else True


def _claim(claim: str, theirs: str, field: dict, holds: bool | None) -> Claim:
    return Claim(claim, theirs, field["value"], field["low"], field["high"], holds)


def _linearity(run: dict) -> list[Claim]:
    """What is linear in x, and whether the loss follows the squared length."""
    vector, norm, proportion = run["linear_r2"], run["norm_r2"], run["ce_proportion"]
    untrained = run["controls"]["random_init"]["norm_r2"]
    return [
        _claim("R2 of the error vector from x", "about half (0.4 to 0.6)", vector, _within(vector, 0.4, 0.6)),
        _claim("R2 of its squared norm from x", "more than 0.9", norm, judge(norm["low"], norm["high"], above=0.9)),
        _claim("the same for an SAE never trained", "not reported", untrained, None),
        _claim("nonlinear error: share of the loss over share of the squared error", "proportional (0.8 to 1.25)",
               proportion, _within(proportion, 0.8, 1.25)),
    ]  # fmt: skip


def _scaling(scaling: dict) -> list[Claim]:
    """Whether large SAEs fail where small ones do, and what stays as the width grows."""
    (law,) = scaling["laws"]
    first, last = f"F={law['sizes'][0]}", f"F={law['sizes'][-1]}"
    (told,) = [pair for pair in scaling["norms"] if (pair["from"], pair["to"]) == (first, last)]
    r2, added, ratio = told["r2"], told["added"], law["fvu_nonlinear_ratio"]
    return [
        _claim(f"R2 of error norms, {first} to {last}", "remarkably predictable (above 0.5)", r2,
               judge(r2["low"], r2["high"], above=0.5)),
        _claim("of the rest, explained by nonlinear error norms", "above 0", added, judge(added["low"], added["high"], above=0)),
        _claim(f"nonlinear FVU, {last} over {first}", "constant in width (0.8 to 1.25)", ratio, _within(ratio, 0.8, 1.25)),
    ]  # fmt: skip


def _scored(cache: Cache, n_tokens: int) -> Scored:
    """The first held-out tokens at both hooks."""
    parts: list[Scored] = []
    for x, z in zip(
        cache.contexts(HOOK, "held_out"), cache.contexts(EARLIER, "held_out"), strict=True
    ):
        parts.append(
            Scored(
                x.acts[:, 1:].flatten(0, 1),
                z.acts[:, 1:].flatten(0, 1),
                x.documents[:, 1:].flatten(),
            )
        )
        if sum(len(part.x) for part in parts) >= n_tokens:
            break
    return Scored(*(torch.cat(column)[:n_tokens] for column in zip(*parts, strict=True)))


def _reductions(sae: SAE, earlier: SAE, cache: Cache, n_tokens: int, seed: int) -> list[Claim]:
    """What pursuit and the earlier layer's reconstruction take off the nonlinear error."""
    batch, scored = next(cache.batches([HOOK, EARLIER], n_tokens, seed)), _scored(cache, n_tokens)
    pursuit = reduce.by_pursuit(sae, batch[HOOK], scored.x)
    z_hats = [reduce.reconstruct(earlier, z) for z in (batch[EARLIER], scored.z)]
    map = reduce.by_earlier(sae, (batch[HOOK], z_hats[0]), (scored.x, z_hats[1]))
    both = torch.stack([pursuit.before, pursuit.after, map.after], 1)
    more = interval(
        scored.owners, both, lambda sums: (sums[..., 1] - sums[..., 2]) / sums[..., 0], seed
    )
    shares = [reduction.share(scored.owners, seed) for reduction in (pursuit, map)]
    names = (
        "pursuit lowers the nonlinear error by",
        "a map from the earlier layer's reconstruction by",
        "the map more than pursuit by",
    )
    theirs = ("very slightly (above 0)", "above 0", "above 0")
    rows = zip(names, theirs, (*shares, more), strict=True)
    return [
        Claim(name, said, *numbers, judge(*numbers[1:], above=0)) for name, said, numbers in rows
    ]


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
    columns, owners = [], torch.zeros(0)
    for hook, run in zip(parts, data.runs(settings, configs), strict=True):
        chunk = next(errors.contexts(hook, "held_out"))
        x, owners = chunk.acts[:, 1:].flatten(0, 1), chunk.documents[:, 1:].flatten()
        missed = (x - reduce.reconstruct(SAE.load(run), x)).square().sum(1)
        columns += [missed, (x - x.mean(0)).square().sum(1)]
    numbers = interval(
        owners,
        torch.stack(columns, 1),
        lambda s: s[..., 2] / s[..., 3] - s[..., 0] / s[..., 1],
        settings.seed,
    )
    claim = "FVU of an SAE trained on the nonlinear error less that of one on the linear"
    return Claim(claim, "worse (above 0)", *numbers, judge(*numbers[1:], above=0))


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
        value, low, high = over_seeds(
            [planted.nonlinear_ratio(rank, seed + i) for i in range(planted.SEEDS)]
        )
        claim = f"planted signal of {name}: nonlinear error with dense noise over without"
        field = {"value": value, "low": low, "high": high}
        rows.append(_claim(claim, "flat (0.95 to 1.05)", field, _within(field, 0.95, 1.05)))
    return rows
