"""Measure SAEs on held-out documents: reconstruction, sparsity, and the model's loss with the SAE
spliced in.

    saelab eval runs/demo
    saelab eval runs/a runs/b --controls
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelab.door import beside as beside_package
from saelab.errors import UsageError
from saelab.ranges import Count
from saelab.runs import RunFolder

from .common import OfCache, Runs, document, finished, keep, show
from .progress import bar, stage
from .report_tables import beside, probes, separated, side_by_side, table

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
    """measure beside it an untrained SAE of the same shape, one trained as long with its decoder
    frozen (kept in the run's folder), and this one with decoder rows in random order, with random
    ones, and with the codes of other tokens, all at its L0; metrics that do not tell it from these
    are marked"""
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
    options["any_kind"] = not args.probe  # which probes the features of one place
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
    from saelab.evaluation import controls, evaluate

    folder, sae, cache_, model = opened
    probed: dict[str, Any] = {}
    beside_: dict[str, Any] = {}
    if args.controls:
        beside_, probed = _controls(opened, args)
    if args.probe:
        stage(f"probing {folder.path}")
        named = {"sae": sae, "random_init": controls.untrained(sae, cache_, args.seed)}
        if "frozen_decoder" in beside_:
            named["frozen_decoder"] = beside_["frozen_decoder"]
        probed["probing"] = _probing(named, cache_, model, args.seed)
    with bar(min(args.tokens, cache_.n_tokens("held_out")), "token", str(folder.path)) as shown:
        fields = evaluate(
            sae,
            cache_,
            model,
            n_tokens=args.tokens,
            seed=args.seed,
            controls=beside_,
            progress=shown.to,
        )
    if sae.origin.source and hasattr(sae, "W_dec"):  # not of several layers
        from saelab.evaluation import plausibility

        probed["check"] = plausibility.on_cache(sae, cache_)._asdict()
    result = document("report", args.seed, **fields, **probed, sae=folder.sae_digest())
    keep(folder.report, result)
    return result


def _controls(opened: "Opened", args: Args) -> tuple[dict[str, Any], dict[str, Any]]:
    """Controls by name; and why there is no frozen decoder, if there is none."""
    from saelab.evaluation import controls
    from saelab.evaluation.synthetic_cache import world_of

    folder, sae, cache_, _ = opened
    here = {
        "random_init": controls.untrained(sae, cache_, args.seed),
        "permuted_decoder": controls.permuted_decoder(sae, args.seed),
    }
    if not hasattr(sae, "W_dec"):
        return here, {"no_frozen_decoder": "a cross-layer transcoder has none"}
    here |= {
        "random_directions": controls.random_directions(sae, args.seed),
        "shuffled_code": controls.shuffled_code(sae, args.seed),
    }
    if cache_.plan.model.get("spec"):
        here["oracle"] = controls.oracle(world_of(cache_), sae.origin).to(sae.W_enc)
    try:
        twin = _frozen_decoder(folder, cache_, args)
    except UsageError as error:
        return here, {"no_frozen_decoder": str(error)}
    l0, sample = controls.measured_l0(sae, cache_, args.seed), controls.sample(sae, cache_)
    return {**here, "frozen_decoder": controls.matched(twin.to(sae.W_enc), l0, sample)}, {}


def _frozen_decoder(folder: RunFolder, cache_: "Cache", args: Args) -> "SAE":
    """The run's twin with a frozen decoder, trained now unless the run holds it."""
    from .train import train_showing_progress

    here = beside_package("training.controls")
    config = here.frozen_config(folder, cache_.path, args.place)
    stage(f"{folder.path}: a frozen decoder is trained as long, kept in {config.out}")
    return here.frozen_decoder(config, lambda each: train_showing_progress([each], resume=True))


def _probing(saes: dict[str, "SAE"], cache_: "Cache", model: Any, seed: int) -> list[dict]:
    """Rows of sparse probes: kinds of Python tokens; for the bundled model, attributes of
    indirect-object prompts too."""
    from saelab import models
    from saelab.evaluation import labelled, probing

    hook = saes["sae"].origin.hook
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
    if "hooks" in result:
        parts.append(beside("one hook replaced", result["hooks"]))
    if "replaced" in result:
        parts.append(beside("all layers replaced", {"each reads its own run": result["replaced"]}))
    if "controls" in result:
        parts.append(beside("controls", result["controls"]))
        parts.append(separated(result))
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
    of_one_place = {str(folder): sae for folder, sae in saes.items() if hasattr(sae, "W_dec")}
    grouped = configurations.groups(of_one_place)
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
