"""Measure SAEs on held-out documents: reconstruction, sparsity, and the model's loss with the SAE
spliced in.

    saelab eval runs/demo
    saelab eval runs/a runs/b --controls
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelab.ranges import Count

from .common import OfCache, Runs, document, finished, keep, show
from .progress import bar, stage
from .report_tables import beside, probes, side_by_side, table

if TYPE_CHECKING:
    from saelab import SAE
    from saelab.activations import Cache
    from saelab.opening import Opened

PROBE_TOKENS = {"train": 60_000, "held_out": 30_000}
PROBE_PROMPTS = 1000


@dataclass(frozen=True)
class Args(OfCache):
    """Options of `saelab eval`."""

    runs: Runs = ()
    """run folders; several are shown side by side"""
    tokens: Count = 200_000
    """held-out tokens to read, at most"""
    controls: bool = False
    """measure an untrained SAE of the same shape, and this one with its decoder rows in random
    order, beside it"""
    probe: bool = False
    """also tell kinds of Python tokens, and who gives to whom in prompts (bundled model), from 1, 2
    and 5 latents"""


def run(args: Args) -> int:
    """Evaluate, write report.json into each run, print a table."""
    from saelab import opening

    folders = finished("eval", args.runs)
    if args.probe:
        _check_text(folders, args.cache)
    options = {"needs": opening.IF_ANY, "device": args.place, "dtype": args.model_dtype}
    opened = opening.open_all(folders, args.model, args.cache, **options)
    results = {folder: _evaluate(run, args) for folder, run in zip(folders, opened, strict=True)}
    saes = {folder: run.sae for folder, run in zip(folders, opened, strict=True)}
    if len(results) == 1:
        (result,) = results.values()
        show(result, args.json, _text(result))
        return 0
    rows = [{"run": str(folder), **_own(result)} for folder, result in results.items()]
    together = document("reports", args.seed, runs=rows, seeds=_seeds(saes, results))
    show(together, args.json, side_by_side(together))
    return 0


def _check_text(folders: list[Path], cache: Path | None) -> None:
    """Raise UsageError, before a model is loaded, for a cache without Python files."""
    from saelab import opening
    from saelab.evaluation import labelled

    for run in opening.open_all(folders, cache=cache, needs=("cache",)):
        labelled.check_python(run.cache)


def _evaluate(opened: "Opened", args: Args) -> dict:
    """One run's report, written into it."""
    from saelab.evaluation import evaluate

    folder, sae, cache_, model = opened
    untrained = _controls(sae, cache_, args.seed) if args.controls or args.probe else {}
    probed: dict[str, Any] = {}
    if args.probe:
        stage(f"probing {folder.path}")
        probed = {"probing": _probing(sae, untrained["random_init"], cache_, model, args.seed)}
    with bar(min(args.tokens, cache_.n_tokens("held_out")), "token", str(folder.path)) as shown:
        beside_ = untrained if args.controls else None
        fields = evaluate(
            sae,
            cache_,
            model,
            n_tokens=args.tokens,
            seed=args.seed,
            controls=beside_,
            progress=shown.to,
        )
    if sae.origin.source:
        from saelab.evaluation import plausibility

        probed["check"] = plausibility.on_cache(sae, cache_)._asdict()
    result = document("report", args.seed, **fields, **probed, sae=folder.sae_digest())
    keep(folder.report, result)
    return result


def _controls(sae: "SAE", cache_: "Cache", seed: int) -> dict[str, "SAE"]:
    from saelab.evaluation import controls

    untrained = controls.untrained(sae, cache_, seed)
    return {"random_init": untrained, "permuted_decoder": controls.permuted_decoder(sae, seed)}


def _probing(sae: "SAE", untrained: "SAE", cache_: "Cache", model: Any, seed: int) -> list[dict]:
    """Rows of sparse probes: kinds of Python tokens; for the bundled model, attributes of
    indirect-object prompts too."""
    from saelab import models
    from saelab.evaluation import labelled, probing

    hook, saes = sae.origin.hook, {"sae": sae, "random_init": untrained}
    splits = [
        labelled.python_tokens(cache_, hook, model.tokenizer, split, n)
        for split, n in PROBE_TOKENS.items()
    ]
    rows = probing.table(saes, splits[0], splits[1], seed=seed)
    here, bundled = (models.identity(each, weights=False) for each in (model, "bundled"))
    if here.revision == bundled.revision:
        prompts = [
            labelled.indirect_objects(model, hook, PROBE_PROMPTS, held_out=held_out)
            for held_out in (False, True)
        ]
        rows += probing.table(saes, prompts[0], prompts[1], seed=seed)
    return rows


def _text(result: dict) -> str:
    parts = [table(result)]
    if "check" in result:
        from saelab.evaluation import plausibility

        parts.append(f"\nas an imported SAE: {plausibility.sentence(result['check'])}")
    if "controls" in result:
        parts.append(beside("controls", result["controls"]))
    if "probing" in result:
        parts.append(probes(result["probing"]))
    return "\n".join(parts)


def _own(result: dict) -> dict:
    """A report without what every document carries."""
    return {
        name: value
        for name, value in result.items()
        if name not in ("schema", "saelab_version", "seed", "command")
    }


def _seeds(saes: dict[Path, "SAE"], results: dict[Path, dict]) -> list[dict]:
    """For each group of runs that differ by their seed alone: every metric's mean and spread, and
    how alike they are."""

    from saelab.analysis.comparison import configurations
    from saelab.evaluation import rows

    named = {str(folder): folder for folder in saes}
    grouped = configurations.groups({str(folder): sae for folder, sae in saes.items()})
    several = [[named[name] for name in group] for group in grouped if len(group) > 1]
    return [
        {
            "runs": [str(folder) for folder in group],
            **{
                row.key: _over_seeds([results[folder][row.key] for folder in group])
                for row in rows.of(results[group[0]])
            },
            "stability": _stability([saes[folder] for folder in group]),
        }
        for group in several
    ]


def _over_seeds(fields: list[dict]) -> dict:
    """A metric's mean over seeds with its interval, their standard deviation and number."""
    from saelab.statistics import over_seeds, spread

    values = [field["value"] for field in fields]
    return {**over_seeds(values).as_dict(), "spread": spread(values), "n": len(values)}


def _stability(saes: list["SAE"]) -> dict:
    """Each seed's decoder rows matched with the next seed's; means over these pairs."""
    from saelab import matching

    stabilities = [
        matching.stability(a.W_dec.detach(), b.W_dec.detach(), signed=a.sparsify.signed)
        for a, b in pairwise(saes)
    ]
    means = {
        name: sum(getattr(each, name) for each in stabilities) / len(stabilities)
        for name in matching.Stability._fields
    }
    return {**means, "threshold": matching.FOUND}
