"""How far attribution graphs on the bundled model are to be believed, on transcoders of its MLPs
and on SAEs of its residual stream: what the dictionaries lose, replacement and completeness, and
the ablations that a graph foretells against those measured, with one thing moving at a time.

    python -m benchmarks.graph_table train --tokens 1M --out runs/table
    python -m benchmarks.graph_table measure --out runs/table

A set may have a suffix, such as residual-600k, which tells sets of other sizes apart.

An SAE of an MLP's output has no place in a graph, whose features must be linear in what comes
before: `saelab graph` refuses it. The SAEs beside the transcoders are of the residual stream after
each layer, between which attention is held and MLPs are errors.
"""

import argparse
from pathlib import Path
from typing import Any

from apps.cli import bench, graph, main
from saelab import sets
from saelab.analysis.circuits.graphs import intervention, report
from saelab.evaluation import evaluate
from saelab.files import read_json, write_json

SETS = {
    "transcoders": ["--hook", "blocks.*.mlp.hook_in", "--target", "blocks.*.hook_mlp_out"],
    "residual": ["--hook", "blocks.*.hook_out"],
}
HOOKS = [
    f"blocks.{layer}.{end}"
    for layer in range(4)
    for end in ("mlp.hook_in", "hook_mlp_out", "hook_out")
]
TASKS = ("ioi", "greater-than", "docstring")
RESULTS = Path("benchmarks/results/graph_table.json")


def train(out: Path, names: list[str], tokens: str, features: str) -> None:
    """A cache of all hooks, then each set in one pass; what is there already is gone on with."""
    cache = str(out / "cache")
    hooks = [word for hook in HOOKS for word in ("--hook", hook)]
    text = ["--text", "bundled-mix", "--tokens", tokens]
    assert main(["capture", "--model", "bundled", *text, *hooks, "--out", cache]) == 0
    for name in names:
        place = SETS[name.partition("-")[0]]
        shape = ["--features", features, "--k", "32", "--tokens", tokens]
        words = ["train", "--cache", cache, *place, *shape, "--checkpoint-every", "50"]
        resume = ["--resume"] if (out / name).is_dir() else []
        assert main([*words, *resume, "--out", str(out / name)]) == 0


def losses(opened: Any, model: Any, n_tokens: int) -> dict[str, Any]:
    """FVU, L0 and CE recovered of one dictionary."""
    fields = evaluate(opened.sae, opened.cache, model, n_tokens=n_tokens)
    numbers = {name: fields[name] for name in ("fvu", "l0", "ce_recovered")}
    return {"target": opened.sae.origin.target, **numbers}


def measure(given: argparse.Namespace) -> None:
    """The losses of the sets in these folders of `out`, then their graphs of each task; written as
    each is known, and what is written is not measured again."""
    out, results = given.out, given.results
    conditions = intervention.COLUMNS | (intervention.APART if given.apart else {})
    table = read_json(results) if results.is_file() else {}
    table |= {"machine": bench.explained(), "model": "bundled", "dtype": "float32"}
    for name in given.sets:
        opened = sets.open_set([out / name], dtype="float32")
        model, saes = opened[0].model, [one.sae for one in opened]
        origin = saes[0].origin
        about = {"features": saes[0].n_features, "k": origin.k, "tokens": origin.tokens}
        rows = table.setdefault(name, about)
        if "dictionaries" not in rows:
            rows["dictionaries"] = [losses(one, model, given.eval_tokens) for one in opened]
            write_json(results, table)
        for task in given.tasks:
            if task in rows:
                continue
            prompts = graph.of_task(task, model, given.n, seed=0)
            fields = report.report(model, saes, prompts, report.Plan(conditions=conditions))
            answered = sum(bool(row["answered"]) for row in fields["prompts"])
            rows[task] = {
                "prompts": len(prompts),
                "answered": answered,
                **{key: fields[key] for key in ("scores", "faithfulness")},
            }
            write_json(results, table)
            print(name, task, rows[task]["faithfulness"]["model"]["correlation"], flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("train", "measure"))
    parser.add_argument("--out", type=Path, default=Path("runs/table"))
    parser.add_argument("--tokens", default="1M")
    parser.add_argument("--features", default="4096")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--apart", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--n", type=int, default=50)
    parser.add_argument("--eval-tokens", type=int, default=50_000)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    if given.what == "train":
        train(given.out, given.sets, given.tokens, given.features)
    else:
        measure(given)
