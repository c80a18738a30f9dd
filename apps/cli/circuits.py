"""Find which heads of a model carry out a task, compare with the truth, and measure how faithful the found circuit is."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.cli.common import Common, document, show

SHOWN = 12  # heads and edges printed; circuit.json has all


@dataclass(frozen=True)
class Args(Common):
    """Options of `saelab circuits`."""

    task: str = "ioi"
    """ioi, greater-than, docstring, induction, agreement"""
    method: str = "eap-ig"
    """eap-ig, eap-ig-activations, eap, atp, codes, codes-raw, acdc, patching, random, layer-index"""
    model: str = "bundled"
    """bundled, a folder in Hugging Face layout, or a hub name"""
    run: Path | None = None
    """run whose SAE reads the codes (default: a small one trained on the spot)"""
    out: Path | None = None
    """folder for circuit.json (default: circuits/TASK-METHOD)"""
    prompts: int | None = None
    """prompts per scoring (default: the method's own)"""
    repeats: int = 3
    """scorings on fresh prompts, which give the intervals"""
    held_out: int = 100
    """held-out prompts for truth and faithfulness"""
    truth: str = "measured"
    """measured (every head of this model resampled), published (of GPT-2 small), none"""
    device: str = "cpu"
    """device the model runs on"""


def run(args: Args) -> int:
    """Score, compare, write circuit.json, print."""
    from saelab import SAE, models
    from saelab.analysis.circuits import report
    from saelab.errors import UsageError
    from saelab.files import write_json

    plan = report.Plan(args.task, args.method, args.prompts, args.repeats, args.held_out, args.truth, args.seed)  # type: ignore[arg-type]
    plan.check()
    if args.run is not None and not args.method.startswith("codes"):
        raise UsageError(f"--run is for the methods codes and codes-raw, which read heads with an SAE; {args.method} needs none")
    options: dict[str, Any] = {} if args.run is None else {"sae": SAE.load(args.run)}
    model = models.load(args.model, args.device)

    def progress(what: str) -> None:
        if sys.stderr.isatty() and not args.json:
            print(f"{what} ...", file=sys.stderr)

    fields = report.report(model, plan, progress=progress, **options)
    result = document("circuits", args.seed, **fields)
    out = args.out or Path("circuits") / f"{args.task}-{args.method}"
    write_json(out / "circuit.json", result)
    show(result, args.json, text(result, out))
    return 0


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(bounds: list | None) -> str:
    return "" if not bounds or bounds[0] is None else f" [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def text(result: dict, out: Path) -> str:
    """The report for people."""
    parts = [_head(result), _scores(result), _truth(result), _faithfulness(result)]
    return "\n\n".join([*parts, f"{out / 'circuit.json'} written; next: saelab browse {out}"])


def _head(result: dict) -> str:
    intervals = result["intervals"]
    rows = [(name, result[f"metric_{name}"], intervals[f"metric_{name}"]) for name in ("clean", "corrupted", "empty")]
    metrics = ", ".join(f"{name} {value:.3f}{_interval(bounds)}" for name, value, bounds in rows)
    prompts = result["prompts"]
    return (
        f"{result['task']} in {result['model']} by {result['method']}: {result['seconds']:.1f} s, {prompts['scoring']} prompts, "
        f"mean of {prompts['repeats']}\n{result['metric'].replace('_', ' ')} on {prompts['held_out']} held-out prompts: "
        f"{metrics} (empty: every head resampled, MLPs kept)"
    )


def _scores(result: dict) -> str:
    rows = [f"a{row['layer']}.h{row['head']:<4} {row['score']:10.4f}" for row in result["heads"][:SHOWN]]
    edges = [f"{edge['source']:>6} -> {edge['target']:9} {edge['score']:10.4f}" for edge in result["edges"][:SHOWN]]
    rows += [""] * (len(edges) - len(rows))
    lines = [f"{'heads':22}{'edges' if edges else ''}"]
    lines += [f"{row:22}{edges[number] if number < len(edges) else ''}".rstrip() for number, row in enumerate(rows)]
    return "\n".join(lines)


def _truth(result: dict) -> str:
    truth, intervals = result["truth"], result["intervals"]
    if truth is None:
        why = "exact patching is the truth itself" if result["method"] == "patching" else "none was asked for"
        return f"not compared with a known circuit: {why}"
    lines = [f"{'agreement with the truth':46}{'AUC':>7}{'average precision':>20}"]
    for row in truth["levels"]:
        kind = f"effect at least {row['level']:.0%}" if truth["kind"] == "measured" else truth["source"]
        name = f"{kind} ({len(row['members'])} heads, {row['undecided']} undecided)"
        lines.append(f"{name:46}{_number(row['auc']):>7}{_number(row['average_precision']):>20}")
    lines.append(
        f"AUC {_number(result['auc'])}{_interval(intervals['auc'])}, by layer index {_number(result['auc_layer_index'])}, "
        f"by random scores {_number(result['auc_random'])}{_interval(intervals['auc_random'])}"
    )
    if truth["rank_correlation"] is not None:
        lines.append(f"rank correlation with the measured effect {truth['rank_correlation']:.3f}")
    return "\n".join(lines)


def _faithfulness(result: dict) -> str:
    lines = ["faithfulness by circuit size (heads by |score|; 95% over prompts)"]
    lines += [f"{p['size']:4} {p['value']:7.3f} [{p['low']:.3f}, {p['high']:.3f}]" for p in result["faithfulness"]]
    areas = [f"{name.upper()} {result[name]:.3f} (log axis {result[f'{name}_log']:.3f})" for name in ("cpr", "cmd")]
    lines.append(", ".join(areas))
    return "\n".join(lines)
