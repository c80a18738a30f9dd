"""What `saelab circuits` prints for people."""

from pathlib import Path

from saelab.runs import RunFolder

from ..browser.circuit import by_feature
from . import own_words
from .common import cell

SHOWN = 12  # heads, nodes and edges printed; circuit.json has all


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(bounds: list | None) -> str:
    return "" if not bounds or bounds[0] is None else f" [{bounds[0]:.3f}, {bounds[1]:.3f}]"


def text(result: dict, out: Path) -> str:
    """The report for people."""
    ranking, curve_of = (_nodes, _node_curve) if by_feature(result) else (_scores, _head_curve)
    parts = [
        _head(result) + _missing(result) + _budget(result),
        ranking(result),
        _truth(result),
        *_published(result),
        curve_of(result),
    ]
    return "\n\n".join([*parts, f"{RunFolder(out).circuit} written; next: saelab browse {out}"])


def _head(result: dict) -> str:
    intervals = result["intervals"]
    rows = [
        (name, result[f"metric_{name}"], intervals[f"metric_{name}"])
        for name in ("clean", "corrupted", "empty")
    ]
    metrics = ", ".join(f"{name} {value:.3f}{_interval(bounds)}" for name, value, bounds in rows)
    prompts = result["prompts"]
    empty = (
        "every feature and error at its mean"
        if by_feature(result)
        else "every head resampled, MLPs kept"
    )
    left_out = own_words.left_out(prompts.get("left_out", {}))
    return (
        f"{result['task']} in {result['model']} by {result['method']}: {result['seconds']:.1f} s, "
        f"{prompts['scoring']} prompts, mean of "
        f"{prompts['repeats']}\n{result['metric'].replace('_', ' ')} on {prompts['held_out']} "
        f"held-out prompts: {metrics} (empty: {empty}){left_out}"
    )


def _budget(result: dict) -> str:
    """How much was measured in the time that was given."""
    budget = result.get("budget")
    if budget is None:
        return ""
    parts = {name: part for name, part in budget.items() if name != "seconds"}
    told = ", ".join(f"{n['measured']} of {n['of']} {name}" for name, n in parts.items())
    return (
        f"\nmeasured in {budget['seconds']:g} s: {told}; the others have no score, and rank last "
        "below"
    )


def _missing(result: dict) -> str:
    """What EAP-IG's points miss of the change that they add up to."""
    rows = result.get("quadrature", [])
    if not rows:
        return ""
    told = ", ".join(f"{row['missing']:.1%} with {row['n_points']}" for row in rows)
    return f"\n{result['points']} points miss of the change between the twins: {told}"


def _nodes(result: dict) -> str:
    """Nodes, and the edges between them; a node's effect is what the metric changes by when it
    takes its corrupted value."""
    rows = [f"{row['name']:34} {row['effect']:10.4f}" for row in result["nodes"][:SHOWN]]
    ends = [f"{edge['source']} -> {edge['target']}" for edge in result["edges"][:SHOWN]]
    width = max(map(len, ends), default=0)
    edges = [
        f"{end:{width}} {edge['score']:10.4f}"
        for end, edge in zip(ends, result["edges"], strict=False)
    ]
    title = (
        f"strongest of {result['n_nodes']:,} nodes at {len(result['hooks'])} hook points (effect "
        "of the corrupted value)"
    )
    heads = ", ".join(
        f"a{row['layer']}.h{row['head']} {row['score']:.3f}" for row in result["heads"][:SHOWN]
    )
    lines = [title, *rows, "", "strongest direct edges", *edges]
    return "\n".join(
        [*lines, "", f"heads, by the effects of features through them: {heads}"] if heads else lines
    )


def _node_curve(result: dict) -> str:
    rows = zip(result["faithfulness"], result["completeness"], strict=True)
    lines = [
        "nodes kept: faithfulness; removed: what is left (0 where nothing is missing); 95% over "
        "prompts"
    ]
    lines += [f"{kept['size']:7,} {_point(kept)} {_point(left)}" for kept, left in rows]
    lines.append(f"CMD {result['cmd']:.3f} (log axis {result['cmd_log']:.3f})")
    return "\n".join(lines)


def _point(point: dict) -> str:
    return f"{point['value']:8.3f}{_interval([point['low'], point['high']]):18}".rstrip()


def _scores(result: dict) -> str:
    rows = [
        f"a{row['layer']}.h{row['head']:<4} {row['score']:10.4f}"
        for row in result["heads"][:SHOWN]
        if row["score"] is not None
    ]
    edges = [
        f"{edge['source']:>6} -> {edge['target']:9} {edge['score']:10.4f}"
        for edge in result["edges"][:SHOWN]
    ]
    rows += [""] * (len(edges) - len(rows))
    lines = [f"{'heads':22}{'edges' if edges else ''}"]
    lines += [
        f"{row:22}{edges[number] if number < len(edges) else ''}".rstrip()
        for number, row in enumerate(rows)
    ]
    return "\n".join(lines)


def _truth(result: dict) -> str:
    truth, intervals = result["truth"], result["intervals"]
    if truth is None:
        why = (
            "exact patching is the truth itself"
            if result["method"] == "patching"
            else "none was asked for"
        )
        if by_feature(result) and not result["heads"]:
            why = "heads have scores where every layer's head outputs (attn.hook_z) have an SAE"
        return f"not compared with a known circuit: {why}"
    lines = [f"{'agreement with the truth':46}{'AUC':>7}{'average precision':>20}"]
    for row in truth["levels"]:
        heads = f"{len(row['members'])} heads, {row['undecided']} undecided"
        name = f"effect at least {row['level']:.0%} ({heads})"
        lines.append(f"{name:46}{_number(row['auc']):>7}{_number(row['average_precision']):>20}")
    lines.append(
        f"AUC {_number(result['auc'])}{_interval(intervals['auc'])}, by layer index "
        f"{_number(result['auc_layer_index'])}, by random scores "
        f"{_number(result['auc_random'])}{_interval(intervals['auc_random'])}"
    )
    if truth["rank_correlation"] is not None:
        lines.append(f"rank correlation with the measured effect {truth['rank_correlation']:.3f}")
    return "\n".join(lines)


def _published(result: dict) -> list[str]:
    """How well heads and edges agree with a paper's circuit, beside others of the same layers."""
    paper = result.get("published")
    if paper is None:
        return []
    lines = [f"agreement with {paper['source']} (null: scores dealt out anew within layers)"]
    for kind in ("heads", "edges"):
        if held := paper[kind]:
            lines.append(f"{held['members']} of {held['of']:,} {kind}")
            lines += [_measure(name, held) for name in ("auc", "precision", "overlap")]
    roles = (f"{role} {n['among_the_best']} of {n['heads']}" for role, n in paper["roles"].items())
    return ["\n".join([*lines, f"among the best as many heads: {', '.join(roles)}"])]


def _measure(name: str, held: dict) -> str:
    low, high = held["chance"][name]
    null = f"null {held[name]['null']:.3f}, 95% of draws {low:.3f} to {high:.3f}"
    return f"  {name:10} {cell(held[name], '.3f')} ({null})"


def _head_curve(result: dict) -> str:
    lines = ["faithfulness by circuit size (heads by |score|; 95% over prompts)"]
    lines += [
        f"{p['size']:4} {p['value']:7.3f} [{p['low']:.3f}, {p['high']:.3f}]"
        for p in result["faithfulness"]
    ]
    areas = [
        f"{name.upper()} {result[name]:.3f} (log axis {result[f'{name}_log']:.3f})"
        for name in ("cpr", "cmd")
    ]
    lines.append(", ".join(areas))
    return "\n".join(lines)
