"""Measure SAEs on held-out documents: reconstruction, sparsity, and the model's loss with the SAE
spliced in.

    saelab eval runs/demo
    saelab eval runs/a runs/b --controls
    saelab eval runs/demo --labels sentiment.csv
    saelab eval runs/demo --suite --controls
    saelab eval runs/demo --rivals --concepts
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg

from saelab.ranges import Count

from . import eval_concepts, eval_controls, eval_probes, eval_rivals, eval_suite
from .common import Folder, OfCache, Runs, document, finished, keep, show
from .eval_seeds import seeds
from .progress import bar, stage
from .report_tables import beside, probes, separated, side_by_side, table

if TYPE_CHECKING:
    from saelab import SAE
    from saelab.opening import Opened


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
    rivals: bool = False
    """measure beside it label-free dictionaries at its L0, fitted now: PCA, ICA, neurons, random
    rows, an orthogonal one, k-means (at L0 1), semi-NMF, K-SVD, MOD, and binary, ternary and
    Gaussian sparse coding"""
    concepts: bool = False
    """how well single features tell concepts that nobody told them: kinds of Python tokens, or what
    labelled images show; of it, an untrained SAE, neurons, and what else is asked for"""
    images: Annotated[str | None, arg(metavar="IMAGES")] = None
    """of a vision model: where the images of the cache lie now (default: where they did)"""
    probe: bool = False
    """also tell kinds of Python tokens, and who gives to whom in prompts (bundled model), from 1, 2
    and 5 latents"""
    labels: Folder = None
    """CSV file with the columns text and label (start and end: of a part of the text), or a folder
    of them: tell every label from 1, 2 and 5 latents, beside neurons, principal components, a dense
    probe and shuffled labels"""
    suite: bool = False
    """SAEBench's evaluations beside, corrected: shrinkage, absorption, structure of decoder rows,
    ground truth of a synthetic world, interchange in a compiled program; of controls too"""
    absorption: bool = False
    """of them absorption alone: of kinds of Python tokens, or of the labels of --labels, where
    `keyword/for` is below `keyword`"""
    world: Folder = None
    """JSON file of a synthetic world's fields: measure an SAE of that world on new samples of it"""

    @property
    def beside(self) -> bool:
        """Whether features are measured beside the report."""
        return bool(self.probe or self.concepts or self.labels or self.suite or self.absorption)


def run(args: Args) -> int:
    """Evaluate, write report.json into each run, print a table."""
    from saelab import opening

    folders = finished("eval", args.runs)
    if args.labels:
        eval_probes.check_labels(args.labels)
    if args.probe:
        eval_probes.check_text(folders, args.cache)
    if args.concepts:
        eval_concepts.check(folders, args.cache)
    options = {"needs": opening.IF_ANY, "device": args.place, "dtype": args.model_dtype}
    options["any_kind"] = not args.beside  # which probes the features of one place
    if args.world or eval_suite.is_synthetic(folders):
        options["needs"] = ("cache",)
    with TemporaryDirectory() as place:
        cache_ = args.cache
        if args.world:
            cache_ = eval_suite.world_cache(args.world, Path(place) / "world", args.seed)
        opened = opening.open_all(folders, args.model, cache_, **options)
        return _run(folders, opened, args)


def _run(folders: list[Path], opened: list["Opened"], args: Args) -> int:
    """Evaluate runs that are open."""
    results = {folder: _evaluate(run, args) for folder, run in zip(folders, opened, strict=True)}
    saes = {folder: run.sae for folder, run in zip(folders, opened, strict=True)}
    if len(results) == 1:
        (result,) = results.values()
        show(result, args.json, _text(result))
        return 0
    rows = [{"run": str(folder), **_own(result)} for folder, result in results.items()]
    together = document("reports", args.seed, runs=rows, seeds=seeds(saes, results))
    show(together, args.json, side_by_side(together))
    return 0


def _evaluate(opened: "Opened", args: Args) -> dict:
    """One run's report, written into it."""
    from saelab.evaluation import controls, evaluate

    folder, sae, cache_, model = opened
    probed: dict[str, Any] = {}
    beside_: dict[str, Any] = {}
    rivals = eval_rivals.rivals_of(opened, args.seed) if args.rivals else {}
    if args.controls:
        beside_, probed = eval_controls.controls_of(opened, args.seed, args.place)
    if args.beside:
        named = {"sae": sae, "random_init": controls.untrained(sae, cache_, args.seed)}
        if "frozen_decoder" in beside_:
            named["frozen_decoder"] = beside_["frozen_decoder"]
        probed |= _probed(named, opened, args)
        if args.concepts:
            every = {**named, **rivals}
            probed["concepts"] = eval_concepts.concepts(every, opened, args.images, args.seed)
        if args.suite or args.absorption:
            probed["suite"] = _suite(named, beside_, opened, args)
    with bar(min(args.tokens, cache_.n_tokens("held_out")), "token", str(folder.path)) as shown:
        fields = evaluate(
            sae,
            cache_,
            model if getattr(model, "reads_text", True) else None,
            n_tokens=args.tokens,
            seed=args.seed,
            controls=beside_,
            rivals=rivals,
            outputs=_outputs(opened, args),
            progress=shown.to,
        )
    if sae.origin.source and hasattr(sae, "W_dec"):  # not of several layers
        from saelab.evaluation import plausibility

        probed["check"] = plausibility.on_cache(sae, cache_)._asdict()
    result = document("report", args.seed, **fields, **probed, sae=folder.sae_digest())
    keep(folder.report, result)
    return result


def _outputs(opened: "Opened", args: Args) -> Any:
    """What says how a vision model's output changes; None of a model that reads text."""
    if getattr(opened.model, "reads_text", True):
        return None
    from saelab.activations.seen import Looking
    from saelab.evaluation.outputs import Outputs

    return Outputs(opened.model, Looking(opened.cache, opened.model, args.images).inputs)


def _probed(named: dict[str, "SAE"], opened: "Opened", args: Args) -> dict[str, Any]:
    """The report's parts on probes."""
    parts: dict[str, Any] = {}
    if args.labels:
        parts["labelled"] = eval_probes.own_labels(args.labels, opened, named, args.seed)
    if args.probe:
        stage(f"probing {opened.folder.path}")
        kinds = eval_probes.python_kinds(named, opened.cache, opened.model, args.seed)
        parts["probing"] = kinds
    return parts


def _suite(
    named: dict[str, "SAE"], beside_: dict[str, Any], opened: "Opened", args: Args
) -> dict[str, Any]:
    """The report's part on the suite."""
    others = {name: each for name, each in beside_.items() if hasattr(each, "W_dec")}
    known = {name: each for name, each in beside_.items() if not hasattr(each, "W_dec")}
    return eval_suite.suite(opened, named | others, known, args)


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
    if "concepts" in result:
        parts.append(eval_concepts.text(result["concepts"]))
    if "labelled" in result:
        parts.append(eval_probes.text(result["labelled"]))
    if "suite" in result:
        parts.append(eval_suite.text(result["suite"]))
    return "\n".join(parts)


def _own(result: dict) -> dict:
    """A report without what every document carries."""
    return {
        name: value
        for name, value in result.items()
        if name not in ("schema", "saelab_version", "seed", "command")
    }
