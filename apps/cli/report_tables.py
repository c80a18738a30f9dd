"""Reports for people: of one SAE, of its probes, of several SAEs side by side."""

ROWS = {
    "fvu": "FVU",
    "l0": "L0",
    "dead_fraction": "dead features",
    "dense_fraction": "dense features",
    "cosine": "cosine",
    "ce_recovered": "CE recovered",
    "ce_recovered_mean": "CE recovered (mean ablation)",
    "kl": "KL, nats",
}


def table(result: dict) -> str:
    """The report for people."""
    lines = [f"{'':30}{'value':>9}  {'95% interval':^19}{'null':>9}"]
    for name, label in ROWS.items():
        field = result[name]
        null = "" if field["null"] is None else f"{field['null']:9.4f}"
        lines.append(
            f"{label:30}{field['value']:9.4f}  [{field['low']:8.4f}, {field['high']:8.4f}]{null:>9}"
        )
    lines.append(f"\n{'known in advance':14}{'FVU':>12}{'CE recovered':>15}{'KL':>10}")
    for name, row in result["references"].items():
        values = [row[key]["value"] for key in ("fvu", "ce_recovered", "kl")]
        lines.append(f"{name:14}{values[0]:14.4f}{values[1]:15.4f}{values[2]:10.4f}")
    ce = " ".join(f"{name} {result[key]:.4f}" for name, key in (("clean", "ce_clean"), ("spliced", "ce_spliced"),
                                                                ("zeroed", "ce_ablated")))  # fmt: skip
    lines.append(
        f"\ncross-entropy in nats: {ce}; {result['tokens']:,} held-out tokens of {result['documents']} documents"
    )
    return "\n".join(lines)


SHORT = {
    "fvu": "FVU",
    "l0": "L0",
    "dead_fraction": "dead",
    "ce_recovered": "CE recovered",
    "kl": "KL, nats",
}


def beside(result: dict) -> str:
    """The controls' rows, to stand under the report: what an SAE that learned nothing, or writes
    the wrong thing, gets."""
    lines = [f"\n{'controls':18}{'FVU':>10}{'CE recovered':>15}{'KL':>10}"]
    for name, row in result["controls"].items():
        fvu, recovered, kl = (row[key]["value"] for key in ("fvu", "ce_recovered", "kl"))
        lines.append(f"{name.replace('_', ' '):18}{fvu:10.4f}{recovered:15.4f}{kl:10.4f}")
    return "\n".join(lines)


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
            f"{label:18}{values}  [{widest['low']:.2f}, {widest['high']:.2f}]    {widest['null']:5.2f}"
        )
    means = [
        sum(cells[label, *column]["value"] for label in labels) / len(labels) for column in columns
    ]
    lines.append(f"{'mean':18}" + "".join(f"{mean:7.2f}  " for mean in means))
    return "\n".join(lines)


def side_by_side(result: dict) -> str:
    """A row per run, and under them mean and spread of the runs that differ by their seed alone."""
    width = max(24, *(len(row["run"]) + 1 for row in result["runs"]))
    lines = [f"{'':{width}}" + "".join(f"{label:>17}" for label in SHORT.values())]
    for row in result["runs"]:
        lines.append(
            f"{row['run']:{width}}" + "".join(f"{row[name]['value']:17.4f}" for name in SHORT)
        )
        lines.append(f"{'':{width}}" + "".join(f"{_range(row[name]):>17}" for name in SHORT))
    for group in result["seeds"]:
        n = len(group["runs"])
        lines.append(
            f"\n{f'mean of {n} seeds':{width}}"
            + "".join(f"{group[name]['value']:17.4f}" for name in SHORT)
        )
        lines.append(
            f"{'spread (sd)':{width}}" + "".join(f"{group[name]['spread']:17.4f}" for name in SHORT)
        )
        if group["fvu"]["low"] is not None:
            lines.append(
                f"{'95% interval':{width}}"
                + "".join(f"{_range(group[name]):>17}" for name in SHORT)
            )
        found = group["stability"]
        lines.append(
            f"matched one to one with the next seed: {found['found']:.0%} of the features above cosine {found['threshold']} "
            f"(random rows {found['null_found']:.0%}), mean cosine {found['mean']:.2f} (random rows {found['null_mean']:.2f})"
        )
    return "\n".join(lines)


def _range(field: dict) -> str:
    return f"[{field['low']:.3g}, {field['high']:.3g}]"
