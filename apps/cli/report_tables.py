"""Reports for people: of one SAE, of its probes, of several SAEs side by side."""

from collections.abc import Mapping

from .common import cell, told


def table(result: dict) -> str:
    """The report for people."""
    from saelab.evaluation import rows
    from saelab.evaluation.separation import not_separated

    lines = [f"{'':30}{'value [95% interval]':28}{'null':>9}"]
    alike = not_separated(result)
    for row in rows.of(result):
        field = result[row.key]
        null = "" if field["null"] is None else f"{field['null']:.4f}"
        mark = "  !" if row.key in alike else ""
        lines.append(f"{row.label:30}{cell(field):28}{null:>9}{mark}".rstrip())
    lines.append(beside("known in advance", _references(result)))
    lines.append(
        f"\n{_losses(result)}; "
        f"{result['tokens']:,} held-out tokens of {result['documents']} documents; "
        f"dead: on {result['dead_tokens']:,} training tokens"
    )
    return "\n".join(lines)


def _references(result: dict) -> dict[str, dict]:
    """What stands beside the SAE, rivals with the size of their dictionary."""
    sizes = result.get("rivals", {})
    named: dict[str, str] = {name: f"{name} F={size}" for name, size in sizes.items()}
    beside: dict[str, dict] = result["references"]
    return {named.get(name, name): fields for name, fields in beside.items()}


def _losses(result: dict) -> str:
    if reason := result.get("no_losses"):
        return f"no losses of the model: {reason}"
    names = {"clean": "ce_clean", "spliced": "ce_spliced", "zeroed": "ce_ablated"}
    ce = " ".join(f"{name} {told(result[key])}" for name, key in names.items())
    return f"cross-entropy in nats: {ce}"


def beside(title: str, others: Mapping[str, dict]) -> str:
    """Reconstructions to stand under the report: references whose results are known; controls,
    what an SAE that learned nothing, or writes the wrong thing, gets; each of several hooks."""
    from saelab.evaluation import rows

    known = [row for row in rows.headline() if row.source in rows.SPLICED]
    columns = [row for row in known if all(row.key in fields for fields in others.values())]
    width = max(18, *(len(name) + 1 for name in others))
    lines = [f"\n{title:{width}}" + "".join(f"{row.short:>15}" for row in columns)]
    for name, fields in others.items():
        values = "".join(f"{told(fields[row.key]['value']):>15}" for row in columns)
        lines.append(f"{name if '.' in name else name.replace('_', ' '):{width}}{values}")
    return "\n".join(lines)


def separated(result: dict) -> str:
    """Which metrics tell the SAE from its controls."""
    from saelab.evaluation import rows
    from saelab.evaluation.separation import not_separated

    known, lines = rows.table(), []
    for key, names in not_separated(result).items():
        label = known[key].label if key in known else key
        lines.append(f"! {label} does not tell it from: {', '.join(names)}")
    if reason := result.get("no_frozen_decoder"):
        lines.append(f"no frozen decoder: {reason}")
    return "\n".join(lines or ["every metric tells it from every control, paired by document"])


def probes(rows: list[dict]) -> str:
    """Accuracy of sparse probes by label and dictionary; the interval and the null are those of the
    SAE's widest probe."""
    cells = {(row["label"], row["dictionary"], row["k"]): row for row in rows}
    labels, ks = (
        list(dict.fromkeys(row["label"] for row in rows)),
        sorted({row["k"] for row in rows if row["k"]}),
    )
    columns = [(name, k) for name in ("sae", "random_init", "neurons") for k in ks] + [
        ("dense", None)
    ]
    heads = "".join(f"{name.replace('_init', '')[:6]:>7}{k or '':<2}" for name, k in columns)
    lines = [f"\n{'sparse probes':18}{heads}  {f'sae {ks[-1]}, 95%':16}{'null':>5}"]
    for label in labels:
        values = "".join(f"{cells[label, *column]['value']:7.2f}  " for column in columns)
        widest = cells[label, "sae", ks[-1]]
        lines.append(
            f"{label:18}{values}  [{widest['low']:.2f}, {widest['high']:.2f}]    "
            f"{widest['null']:5.2f}"
        )
    means = [
        sum(cells[label, *column]["value"] for label in labels) / len(labels) for column in columns
    ]
    lines.append(f"{'mean':18}" + "".join(f"{mean:7.2f}  " for mean in means))
    return "\n".join(lines)


def side_by_side(result: dict) -> str:
    """A row per run, and under them mean and spread of the runs that differ by their seed alone."""
    from saelab.evaluation import rows

    held = [set(run) for run in result["runs"]]
    columns = [row for row in rows.headline() if row.key in set.union(*held)]
    width = max(24, *(len(row["run"]) + 1 for row in result["runs"]))
    lines = [" " * width + "".join(f"{row.short:>28}" for row in columns)]
    for run in result["runs"]:
        cells = (cell(run[row.key]) if row.key in run else "-" for row in columns)
        lines.append(f"{run['run']:{width}}" + "".join(f"{one:>28}" for one in cells))
    reasons = {run["run"]: run["no_losses"] for run in result["runs"] if "no_losses" in run}
    lines += [f"{name}: no losses of the model: {reason}" for name, reason in reasons.items()]
    for group in result["seeds"]:
        title = f"mean of {len(group['runs'])} seeds"
        shared = [row for row in columns if row.key in group]
        cells = "".join(f"{cell(group[row.key]):>28}" for row in shared)
        lines.append(f"\n{title:{width}}{cells}")
        spreads = "".join(f"{group[row.key]['spread']:28.4f}" for row in shared)
        lines.append(f"{'spread (sd)':{width}}" + spreads)
        lines.append(_stability(group["stability"]))
    return "\n".join(lines)


def _stability(same: dict) -> str:
    return (
        f"matched one to one with the next seed: {same['found']:.0%} of the features above cosine "
        f"{same['threshold']} (random rows {same['null_found']:.0%}), mean cosine "
        f"{same['mean']:.2f} (random rows {same['null_mean']:.2f})"
    )
