"""The report of a sparse feature circuit: strongest nodes and edges, faithfulness and completeness,
heads it runs through.

Shapes: M nodes.
"""

import time
from typing import Any

from saelab.analysis.circuits.features.circuit import FeatureCircuit, feature_circuit
from saelab.analysis.circuits.features.effects import ERROR, Nodes
from saelab.analysis.circuits.heads import ablation, curves
from saelab.analysis.circuits.heads.known import compared
from saelab.analysis.circuits.heads.report import (
    Plan,
    Progress,
    head_rows,
    heading,
    known,
    metric_intervals,
)
from saelab.analysis.circuits.heads.score import FEATURES
from saelab.errors import UsageError
from saelab.sae import SAE
from saelab.tasks.parts import parts

PROMPTS = 100
NODES, EDGES = 1000, 200  # reported, strongest first


def feature_report(
    model: Any, plan: Plan, saes: list[SAE], *, progress: Progress = lambda what: None
) -> dict[str, Any]:
    """Everything `saelab circuits --method feature-circuit` prints, as plain values; see
    `feature_circuit`.

    Raises UsageError for no SAE, for one that does not belong to this model, and for a task that
    this model does not do.
    """
    plan.check()
    if not saes:
        raise UsageError(f"{FEATURES} needs SAEs of this model: name each run with --run")
    drawn = parts(plan.task, model, plan.n or PROMPTS, plan.held_out, seed=plan.seed)
    held_out = ablation.setting(model, drawn.held_out)
    progress(f"tracing {len(saes)} hook points")
    started = time.perf_counter()
    circuit = feature_circuit(model, drawn.scoring[0], held_out.task, saes, seed=plan.seed)
    seconds = time.perf_counter() - started
    progress("comparing")
    means = {
        "clean": circuit.curve.metric_clean,
        "corrupted": ablation.mean(held_out.base.corrupted),
        "empty": circuit.curve.metric_empty,
    }
    truth = None if circuit.heads is None else known(held_out, plan)
    agreed, intervals = compared([] if circuit.heads is None else [circuit.heads], truth, plan.seed)
    return {
        **heading(plan, held_out, means, drawn),
        **_circuit(circuit),
        **agreed,
        "intervals": intervals | metric_intervals(means),
        "seconds": seconds,
    }


def _circuit(circuit: FeatureCircuit) -> dict[str, Any]:
    """The fields that say what was found and how good it is by itself."""
    kept = [curves.Point(point.size, *point.faithfulness) for point in circuit.curve.points]
    removed = [curves.Point(point.size, *point.completeness) for point in circuit.curve.points]
    cmd = curves.cmd(kept)
    return {
        "hooks": circuit.hooks,
        "n_nodes": len(circuit.nodes.effect),
        "nodes": node_rows(circuit.nodes.top(NODES), circuit.hooks),
        "edges": edge_rows(circuit),
        "heads": [] if circuit.heads is None else head_rows(circuit.heads),
        "cpr": None,  # it ranks by signed score; features are ranked by the size of their effect
        "cmd": cmd.linear,
        "cmd_log": cmd.log,
        "faithfulness": [point._asdict() for point in kept],
        "completeness": [point._asdict() for point in removed],
    }


def node_rows(nodes: Nodes, hooks: list[str]) -> list[dict[str, Any]]:
    """Nodes as plain values; name: hook/feature or, of an error node, whose feature is None,
    hook/error."""
    rows = []
    for site, feature, effect in zip(
        nodes.site.tolist(), nodes.feature.tolist(), nodes.effect.tolist(), strict=True
    ):
        which = None if feature == ERROR else feature
        name = f"{hooks[site]}/{'error' if which is None else which}"
        rows.append({"name": name, "hook": hooks[site], "feature": which, "effect": effect})
    return rows


def edge_rows(circuit: FeatureCircuit) -> list[dict[str, Any]]:
    """The strongest edges among the nodes that were traced; the last row of `edges` is the
    metric."""
    n_traced = circuit.edges.shape[1]
    names = [
        *(row["name"] for row in node_rows(circuit.nodes.top(n_traced), circuit.hooks)),
        "metric",
    ]
    strongest = circuit.edges.abs().flatten().argsort(descending=True, stable=True)[:EDGES].tolist()
    rows = [
        (*divmod(place, n_traced), circuit.edges.flatten()[place].item()) for place in strongest
    ]
    return [
        {"source": names[up], "target": names[down], "score": score}
        for down, up, score in rows
        if score
    ]
