"""Split what SAEs miss into a part that is linear in the activation and one that is not; measure
what each costs the model.

    saelab dark-matter runs/a
    saelab dark-matter runs/a runs/b --tokens 500k
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from saelab.errors import UsageError
from saelab.ranges import Count, Weight

from .common import Folder, OfCache, Runs, attempt, cell, document, finished, keep, show
from .progress import bar

if TYPE_CHECKING:
    from saelab import SAE
    from saelab.activations import Cache
    from saelab.opening import Opened

COLUMNS = (
    ("FVU", "fvu"),
    ("linear FVU", "fvu_linear"),
    ("nonlin. FVU", "fvu_nonlinear"),
    ("R2 error", "linear_r2"),
    ("R2 norm", "norm_r2"),
    ("CE linear", "ce_share_linear"),
    ("CE nonlin.", "ce_share_nonlinear"),
    ("proportion", "ce_proportion"),
)


@dataclass(frozen=True)
class Args(OfCache):
    """Options of `saelab dark-matter`."""

    runs: Runs = ()
    """run folders: SAEs of several widths, sparsifiers or layers of one model"""
    tokens: Count = 500_000
    """training tokens to fit the linear maps on, at most"""
    held_out: Count = 50_000
    """held-out tokens to score on, at most"""
    ridge: Weight = 0.0
    """ridge of the linear maps, added to the activations' covariance; above 0 they can be fitted on
    fewer tokens"""
    errors: Folder = None
    """also write the error of the (one) run and its parts as an activation cache into this folder,
    to train SAEs on"""


def run(args: Args) -> int:
    """Analyse, write dark-matter.json and the linear map into every run, print tables."""
    from saelab import opening
    from saelab.analysis.dark_matter import map_file
    from saelab.analysis.dark_matter.report import analyse

    folders = finished("dark-matter", args.runs)
    if args.errors and len(folders) > 1:
        raise UsageError(f"--errors writes the error of one run, {len(folders)} are named")
    options: dict[str, Any] = {"device": args.place, "dtype": args.model_dtype or "float32"}
    opened = opening.open_all(folders, args.model, args.cache, **options)
    _check_common(opened)
    saes = {str(folder): run.sae for folder, run in zip(folders, opened, strict=True)}
    cache, model = opened[0].cache, opened[0].model
    n_tokens, n_held_out = (
        min(args.tokens, cache.n_tokens()),
        min(args.held_out, cache.n_tokens("held_out")),
    )
    maps = {}
    with bar(n_tokens + n_held_out, "token") as shown:
        sizes = {"n_tokens": args.tokens, "n_held_out": args.held_out, "ridge": args.ridge}
        told = {"progress": shown.to, "keep": maps.__setitem__}
        fields = analyse(saes, cache, model, **sizes, seed=args.seed, **told)
    result = document("dark-matter", args.seed, **fields)
    for run_, own in zip(opened, result["runs"], strict=True):
        of_it = {"runs": [own], "sae": run_.folder.sae_digest()}
        keep(run_.folder.dark_matter, {**result, **of_it})
        kept = partial(map_file.write, map=maps[own["run"]], sae=of_it["sae"])
        attempt(run_.folder.dark_matter_map, kept)
    lines = [table(result)]
    if args.errors:
        lines.append(_write_errors(args, cache, next(iter(saes.values()))))
    show(result, args.json, "\n".join(lines))
    return 0


def _check_common(opened: "list[Opened]") -> None:
    """Raise UsageError naming two runs of different models or caches."""
    first, *others = opened
    for other in others:
        pair = f"{first.folder.path} and {other.folder.path} were trained on different"
        theirs, mine = other.sae.origin.model, first.sae.origin.model
        if theirs and mine and mine.differs(theirs):
            raise UsageError(f"{pair} models, {mine.name} and {theirs.name}")
        if first.cache.path.resolve() != other.cache.path.resolve():
            paths = f"{first.cache.path} and {other.cache.path}"
            raise UsageError(f"{pair} caches, {paths}; --cache names one for all")


def _write_errors(args: Args, cache: "Cache", sae: "SAE") -> str:
    """Write the error cache; what to do with it."""
    from saelab.analysis.dark_matter.error_cache import write_errors

    assert args.errors is not None
    total = sum(shard["contexts"] for shard in cache.manifest["shards"]) * cache.context
    with bar(total, "token", str(args.errors)) as shown:
        write_errors(sae, cache, args.errors, args.tokens, args.seed, shown.to)
    hook = f"{cache.resolve(sae.origin.hook)}.error.nonlinear"
    return f"next: saelab train --cache {args.errors} --hook {hook} --out RUN"


def table(result: dict) -> str:
    """The report for people: the runs, the controls, and what wider or denser ones change."""
    lines = []
    for entry in result["runs"]:
        lines.append(entry["run"])
        lines += [f"  {head:12} {cell(entry[key])}" for head, key in COLUMNS]
    lines.append(
        "\nknown in advance (R2 error: dead 1, shrunk 1, permuted the null), and an SAE never "
        "trained"
    )
    for entry in result["runs"]:
        null = entry["linear_r2_null"]
        lines.append(f"{entry['run']}, null {'undefined' if null is None else format(null, '.5f')}")
        for name, control in entry["controls"].items():
            lines.append(
                f"  {name:12} R2 error {control['linear_r2']['value']:8.4f}   R2 norm "
                f"{control['norm_r2']['value']:8.4f}"
            )
    lines += _scaling(result["scaling"])
    first = result["runs"][0]
    lines.append(
        f"\n{first['tokens_fitted']:,} tokens fitted, {first['tokens']:,} of {first['documents']} "
        "documents scored"
    )
    return "\n".join(lines)


def _scaling(scaling: dict) -> list[str]:
    lines = ["\nerror norms of one run told from another's"] if scaling["norms"] else []
    for told in scaling["norms"]:
        numbers = (
            f"R2 {told['r2']['value']:.3f}; its nonlinear part explains "
            f"{told['added']['value']:.1%} of the rest"
        )
        lines.append(f"  {told['from']} -> {told['to']}: {numbers}")
    for law in scaling["laws"]:
        floor, ratios = (
            law["floor"],
            [law[f"{name}_nonlinear_ratio"]["value"] for name in ("fvu", "share")],
        )
        lines += [
            f"\nFVU over {law['over']} {law['sizes']}: floor {cell(floor)}, of it nonlinear "
            f"{law['nonlinear']['value']:.4f}",
            f"  from first to last: nonlinear FVU times {ratios[0]:.2f}, its share of the error "
            f"times {ratios[1]:.2f}",
        ]
    return lines
