"""Trace which features make a model continue a prompt as it does, draw the attribution graph, and
measure how far it is to be believed.

    saelab graph --run runs/tc --prompt "When Anna and Ben went home, Ben gave a key to"
    saelab graph --run runs/tc0 --run runs/tc1 --task ioi --n 50 --json
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import UseAppendAction, arg

from saelab.errors import UsageError
from saelab.ranges import Count, OrNone, Share

from . import graph_text
from .common import Folder, OfRun, document, show
from .progress import stage

if TYPE_CHECKING:
    from saelab.analysis.circuits.graphs.report import Prompt

Source = Annotated[str | None, arg(metavar="TASK", help_behavior_hint="")]
Texts = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="TEXT", help_behavior_hint="")]


@dataclass(frozen=True)
class Args(OfRun):
    """Options of `saelab graph`."""

    run: UseAppendAction[tuple[Path, ...]] = ()
    """run of a transcoder (or SAE), or a folder of such runs; several make one set"""
    prompt: Texts = ()
    """text whose next token is to be explained; may be repeated"""
    prompts: Folder = None
    """file of prompts (CSV, JSON, JSON lines; see README)"""
    task: Source = None
    """built-in task whose held-out prompts are traced: ioi, greater-than, docstring, induction,
    agreement"""
    n: Count = 50
    """prompts taken of a file or task, at most"""
    nodes: Share = 0.8
    """share of the influence on the output that the kept nodes carry"""
    edges: Share = 0.98
    """share of it that the kept edges carry"""
    ablated: OrNone = 20
    """features of each graph that are ablated one by one, to measure what the graph foretells"""
    out: Folder = None
    """folder for the graphs (default: graphs/NAME)"""


def run(args: Args) -> int:
    """Trace, score, write the graphs and their table, print."""
    from saelab import models, opening, runs
    from saelab.analysis.circuits.graphs import report
    from saelab.analysis.circuits.graphs.document import theirs
    from saelab.files import write_json

    folders = members(args.run)
    options = {"device": args.place, "dtype": args.model_dtype or "float32"}
    opened = opening.open_all(folders, args.model, needs=("model",), **options)
    model, saes = opened[0].model, [one.sae for one in opened]
    check_together(opened)
    prompts = given(args, model)
    name = args.out.name if args.out else args.task or (args.prompts and args.prompts.stem)
    scan = "-".join(folder.resolve().name for folder in folders)
    plan = report.Plan(scan, args.nodes, args.edges, args.ablated, args.seed)
    out = runs.RunFolder(args.out or Path("graphs") / (name or "prompt"))

    def write(traced: Any) -> None:
        slug = traced.fields["metadata"]["slug"]
        write_json(out.graph(slug), document("graph", args.seed, **traced.fields))
        try:
            fields = theirs(traced.fields, traced.places)
        except UsageError as refusal:
            refusals.append(str(refusal))
        else:
            write_json(out.path / "circuit-tracer" / f"{slug}.json", fields)
            listed.append(fields["metadata"])
        stage(f"{slug} of {len(prompts)}")

    refusals: list[str] = []
    listed: list[dict] = []
    fields = report.report(model, saes, prompts, plan, write)
    if listed:
        path = out.path / "circuit-tracer" / "graph-metadata.json"
        write_json(path, {"graphs": listed})
    fields["notes"] += refusals[:1]
    sources = {
        models.resolve_hook(model, one.sae.origin.target): str(one.folder.path.absolute())
        for one in opened
    }
    shares = {"node_share": args.nodes, "edge_share": args.edges}
    result = document("graphs", args.seed, **fields, **shares, runs=sources)
    write_json(out.graphs, result)
    for note in fields["notes"]:
        print(note, file=sys.stderr)
    show(result, args.json, graph_text.text(result, out.path))
    return 0


def members(named: Sequence[Path]) -> list[Path]:
    """The runs that are named, and those inside folders that are no runs themselves."""
    from saelab.folders import find
    from saelab.runs import RunFolder

    if not named:
        raise UsageError("no run named: saelab graph --run RUN [--run RUN ...] --prompt TEXT")
    folders: list[Path] = []
    for folder in named:
        inside = {} if RunFolder(folder).is_run() else find([folder])
        folders += inside.values() if inside else [folder]
    return folders


def check_together(opened: Sequence[Any]) -> None:
    """Raise UsageError for a run of another model than the first one's."""
    from saelab import models

    model, first = opened[0].model, opened[0].folder.path
    for one in opened[1:]:
        if one.sae.origin.model is not None:
            models.check(model, one.sae.origin.model, f"{one.folder.path}, beside {first},")


def given(args: Args, model: Any) -> list["Prompt"]:
    """The prompts that the command line names, in tokens."""
    from saelab.analysis.circuits.graphs import report
    from saelab.tasks import files, tokens

    if args.prompts and not args.prompts.is_file():
        raise UsageError(f"no file {args.prompts}")
    texts = [report.prompt(model, text) for text in args.prompt]
    if args.prompts:
        words = files.read_words(args.prompts)
        for drawn in words.prompts[: args.n]:
            texts.append(report.prompt(model, drawn.clean, drawn.right))
    if args.task:
        task = tokens.task(args.task, model, n=args.n, seed=args.seed, split="held-out")
        for row, right, end in zip(task.clean, task.right, task.positions["end"], strict=True):
            ids = row[: int(end) + 1]
            text = model.tokenizer.decode(ids[1:].tolist())
            texts.append(report.Prompt(text, ids, [i for i in right.tolist() if i >= 0]))
    if not texts:
        raise UsageError("nothing to trace: give --prompt TEXT, --prompts FILE or --task TASK")
    return texts
