"""Find which heads of a model carry out a task, compare with the truth, and measure how faithful
the found circuit is.

    saelab circuits --task ioi
    saelab circuits --prompts gifts.csv --method acdc --json
    saelab circuits --heads runs/z
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from saelab.errors import UsageError
from saelab.ranges import Count, Positive

from . import circuit_text, heads, prompt_source
from .common import Folder, OfCache, Place, document, keep, show, unsaid
from .progress import stage


@dataclass(frozen=True)
class Args(OfCache):
    """Options of `saelab circuits`."""

    task: prompt_source.Task = None
    """ioi (the default), greater-than, docstring, induction, agreement"""
    prompts: prompt_source.Prompts = None
    """file of prompt pairs instead (CSV, JSON, JSON lines), half of which are held out"""
    method: str = "eap-ig"
    """eap-ig, eap-ig-activations, eap, atp, codes, codes-raw, acdc, patching, random, layer-index;
    feature-circuit"""
    model: Place = None
    """bundled, a folder in Hugging Face layout, or a hub name (default: the run's own, else
    bundled)"""
    run: UseAppendAction[tuple[Path, ...]] = ()
    """run whose SAE reads the codes (default: a small one trained on the spot); for feature-circuit
    several, a hook each"""
    heads: Folder = None
    """run of an attention SAE (on attn.hook_z): report which heads write its features, from where,
    and what kinds of heads they are, instead of a circuit; --run: a residual SAE to split them
    over"""
    tokens: Count = 20_000
    """held-out tokens that --heads reads, at most, in whole contexts"""
    out: Folder = None
    """folder for circuit.json (default: circuits/TASK-METHOD)"""
    n: Annotated[Count | None, unsaid] = None
    """prompts per scoring, at most (default: the method's own)"""
    repeats: Count = 3
    """scorings on fresh prompts, which give the intervals (feature-circuit: always one)"""
    held_out: Count = 100
    """held-out prompts for truth and faithfulness"""
    points: Literal["left", "midpoint", "right"] = "midpoint"
    """where EAP-IG takes its gradients between the twins; left: as published, without the clean
    run"""
    edges: bool = False
    """measure every edge too, with --method patching: a run each"""
    seconds: Positive | None = None
    """time that acdc and patching may take, all scorings together: the likeliest edges and nodes
    (by EAP) come first, and it is said how many were measured"""
    truth: str = "measured"
    """measured (every head of this model resampled), none"""
    published: Annotated[str | None, arg(metavar="NAME")] = None
    """circuit of a paper to compare with as well: ioi, greater-than (of GPT-2 small), docstring (of
    attn-only-4l), where that model is the one loaded"""


def run(args: Args) -> int:
    """Score, compare, write circuit.json, print; or report on heads."""
    if args.heads:
        return heads.run(args)
    from saelab import models, opening, runs
    from saelab.analysis.circuits.features import report as feature_report
    from saelab.analysis.circuits.heads import report

    source = prompt_source.chosen(args.task, args.prompts, args.published or "ioi")
    told: dict[str, Any] = {"n": args.n, "repeats": args.repeats, "held_out": args.held_out}
    told |= {"truth": args.truth, "seconds": args.seconds, "published": args.published}
    plan = report.Plan(source, args.method, seed=args.seed, **told)
    plan.check()
    if args.edges and args.method != "patching":
        raise UsageError(f"--edges is for patching: {args.method} scores what edges it has")
    check_runs(args.method, args.run)
    options = {"device": args.place, "dtype": args.model_dtype or "float32"}
    opened = opening.open_all(args.run, args.model, needs=("model",), **options)
    saes = [run.sae for run in opened]
    model = opened[0].model if opened else models.load(args.model or "bundled", **options)

    def progress(what: str) -> None:
        stage(what)
        if sys.stderr.isatty() and not args.json:
            print(f"{what} ...", file=sys.stderr)

    if args.method == "feature-circuit":
        fields = feature_report.feature_report(model, plan, saes, progress=progress)
        stands = [models.resolve_hook(model, sae.origin.target) for sae in saes]
        folders = [str(folder.resolve()) for folder in args.run]
        sources = dict(zip(stands, folders, strict=True))
        result = document("feature-circuit", args.seed, **fields, runs=sources)
    else:
        options: dict[str, Any] = {"sae": saes[0]} if saes else {}
        options |= {"points": args.points, "edges": args.edges}
        result = document(
            "circuits", args.seed, **report.report(model, plan, progress=progress, **options)
        )
    out = args.out or Path("circuits") / f"{prompt_source.name(source)}-{args.method}"
    keep(runs.RunFolder(out).circuit, result)
    show(result, args.json, circuit_text.text(result, out))
    return 0


def check_runs(method: str, runs: tuple[Path, ...]) -> None:
    """Raise UsageError for runs that a method has no use for."""
    if runs and not method.startswith(("codes", "feature-circuit")):
        readers = "codes and codes-raw, which read heads with an SAE, and for feature-circuit"
        raise UsageError(f"--run is for {readers}; {method} needs none")
    if len(runs) > 1 and method.startswith("codes"):
        raise UsageError(f"{method} reads heads with one SAE: name one --run, not {len(runs)}")
