"""Trace which features make a model continue a prompt as it does, draw the attribution graph, and
measure how far it is to be believed.

    saelab graph --run runs/tc --prompt "When Anna and Ben went home, Ben gave a key to"
    saelab graph --run runs/tc0 --run runs/tc1 --task ioi --n 50 --json
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import UseAppendAction, arg

from saelab.errors import UsageError
from saelab.ranges import Count, OrNone, Portion

from . import graph_text, prompt_source
from .common import Folder, OfRun, document, show
from .progress import stage

if TYPE_CHECKING:
    from saelab.analysis.circuits.graphs.report import Prompt
    from saelab.analysis.parts import Site
    from saelab.runs import RunFolder

Texts = Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="TEXT", help_behavior_hint="")]


@dataclass(frozen=True)
class Args(OfRun):
    """Options of `saelab graph`."""

    run: UseAppendAction[tuple[Path, ...]] = ()
    """run of a transcoder (or SAE), or a folder of such runs; several make one set"""
    prompt: Texts = ()
    """text whose next token is to be explained; may be repeated"""
    prompts: prompt_source.Prompts = None
    """file of prompts (CSV, JSON, JSON lines; see README); their answers are logits that are
    traced"""
    task: prompt_source.Task = None
    """built-in task whose held-out prompts are traced: ioi, greater-than, docstring, induction,
    agreement"""
    n: Count = 50
    """prompts taken of a file or task, at most"""
    nodes: Portion = 0.8
    """share of the influence on the output that the kept nodes carry"""
    edges: Portion = 0.98
    """share of it that the kept edges carry"""
    ablated: OrNone = 20
    """features of each graph that are ablated one by one, to measure what the graph foretells"""
    apart: bool = False
    """also ablate with one thing moving at a time (attention, norms, which features are active, the
    model's own MLPs), which says where the graph's foretelling breaks"""
    supernodes: OrNone = 0
    """tokens of the first run's cache on which features that fire together are found, which become
    supernodes; 0: none"""
    cache: Folder = None
    """that cache, where it is not the one that the run names"""
    attention: OrNone = 20
    """nodes of each graph of which it is told why their strongest head attends where it does (a
    head's query and key, taken apart, cost as much as its width in features; 0: none)"""
    out: Folder = None
    """folder for the graphs (default: graphs/NAME)"""


def run(args: Args) -> int:
    """Trace, score, write the graphs and their table, print."""
    from saelab import opening, runs, sets
    from saelab.analysis import parts
    from saelab.analysis.circuits.graphs import intervention, report, supernodes
    from saelab.analysis.circuits.graphs.document import theirs
    from saelab.files import write_json

    prompt_source.check(args.task, args.prompts)
    options: dict[str, Any] = {"device": args.place, "dtype": args.model_dtype or "float32"}
    opened = sets.open_set(args.run, args.model, needs=("model",), **options)
    model, coders = opened[0].model, [one.sae for one in opened]
    prompts = given(args, model)
    name = args.out.name if args.out else args.task or (args.prompts and args.prompts.stem)
    folders = [one.folder.path for one in opened]
    scan = "-".join(folder.resolve().name for folder in folders)
    conditions = intervention.COLUMNS | (intervention.APART if args.apart else {})
    placed = {one.folder: parts.sites(model, [one.sae]) for one in opened}
    fired = None
    if args.supernodes:
        options["any_kind"] = True
        (first,) = opening.open_all(folders[:1], model, args.cache, **options)
        at = {site.write: site.sae for sites in placed.values() for site in sites}
        fired = supernodes.firings(at, first.cache, args.supernodes)
    sizes = (args.nodes, args.edges, args.ablated, args.seed)
    plan = report.Plan(scan, *sizes, conditions, fired, args.attention)
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
    fields = report.report(model, coders, prompts, plan, write)
    if listed:
        path = out.path / "circuit-tracer" / "graph-metadata.json"
        write_json(path, {"graphs": listed})
    fields["notes"] += refusals[:1]
    sources = {
        site.write: str(_folder(folder, site).path.resolve())
        for folder, sites in placed.items()
        for site in sites
    }
    shares = {"node_share": args.nodes, "edge_share": args.edges}
    result = document("graphs", args.seed, **fields, **shares, runs=sources)
    write_json(out.graphs, result)
    for note in fields["notes"]:
        print(note, file=sys.stderr)
    show(result, args.json, graph_text.text(result, out.path))
    return 0


def _folder(run: "RunFolder", site: "Site") -> "RunFolder":
    """Where the features of a site have their pages."""
    layer = site.sae.origin.more.get("clt_layer")
    return run if layer is None else run.layer(layer)


def given(args: Args, model: Any) -> list["Prompt"]:
    """The prompts that the command line names, in tokens."""
    from saelab.analysis.circuits.graphs import report
    from saelab.tasks import files

    texts = [report.prompt(model, text) for text in args.prompt]
    if args.prompts:
        for number, drawn in enumerate(files.read_words(args.prompts, ()).prompts[: args.n], 1):
            with files.row_of(args.prompts, number):
                texts.append(report.prompt(model, drawn.clean, drawn.right))
    if args.task:
        texts += of_task(args.task, model, args.n, args.seed)
    if not texts:
        raise UsageError("nothing to trace: give --prompt TEXT, --prompts FILE or --task TASK")
    return texts


def of_task(name: str, model: Any, n: int, seed: int) -> list["Prompt"]:
    """n held-out prompts of a built-in task, up to where the answer follows."""
    from saelab.analysis.circuits.graphs.report import Prompt
    from saelab.tasks import tokens

    task, prompts = tokens.task(name, model, n=n, seed=seed, split="held-out"), []
    for row, right, end in zip(task.clean, task.right, task.positions["end"], strict=True):
        ids = row[: int(end) + 1]
        text = model.tokenizer.decode(ids[1:].tolist())
        prompts.append(Prompt(text, ids, [i for i in right.tolist() if i >= 0]))
    return prompts
