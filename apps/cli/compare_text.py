"""Comparisons for people."""

import math
from collections.abc import Mapping
from typing import Any

from .common import cell, told

SIDES = ("first", "second")
FEW = 30  # documents, from which intervals are bootstrapped


def pair(result: Mapping[str, Any]) -> str:
    """Two SAEs: what they differ by, and what they share."""
    lines = [f"A {result['first']}", f"B {result['second']}", *_metrics(result)]
    return "\n".join([*lines, "", *result["sentences"].values(), "", features(result)])


def features(result: Mapping[str, Any]) -> str:
    """What two SAEs share."""
    return "\n".join([*_start(result), *_found(result), *_splitting(result), *_absorption(result)])


def _start(result: Mapping[str, Any]) -> list[str]:
    """What two SAEs may share because they started alike."""
    start = result["start"]
    lines = []
    if start["same"]:
        lines.append(
            "A and B started from the same random rows: what they share may be that start, another "
            "seed tells it from what they found"
        )
    known = [(w, start[side]) for w, side in (("A", "first"), ("B", "second"))]
    if told := ", ".join(f"{share(f)} of {w}'s" for w, f in known if f["value"] is not None):
        lines.append(f"still above cosine {start['threshold']} with their random start: {told}")
    return lines


def _metrics(result: Mapping[str, Any]) -> list[str]:
    lines = [
        "",
        f"{'':30}{'better':8}{'A':>9}{'B':>9}  {'B - A [95% interval]':32}{'least':>9}  B is",
    ]
    for row in result["differences"]:
        values = "".join(f"{told(row[side]):>9}" for side in ("first", "second"))
        change = f"{difference(row):32}{told(row['least'], f'.{decimals(row)}f'):>9}"
        lines.append(f"{_name(row)}{values}  {change}  {verdict(row)}".rstrip())
    how = "bootstrap over documents"
    if result["interval"] == "student":
        how = f"fewer than {FEW} documents: Student's t over the {result['documents']}"
    lines.append(
        f"{result['tokens']:,} held-out tokens of {result['documents']} documents, paired; {how}; "
        "least: what a difference must exceed to be told apart from 0"
    )
    if reason := result.get("no_losses"):
        lines.append(f"no losses of the model: {reason}")
    return lines


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['label']:30}{'-' if row['better'] == 'none' else row['better']:8}"


def difference(row: Mapping[str, Any]) -> str:
    """A difference with its sign and interval, to as many decimals as the interval has to show."""
    return cell(row, f"+.{decimals(row)}f")


def decimals(row: Mapping[str, Any]) -> int:
    """Decimals that show two figures of half the interval, 4 at least and 8 at most."""
    if row["low"] is None or row["high"] <= row["low"]:
        return 4
    return min(8, max(4, 1 - math.floor(math.log10((row["high"] - row["low"]) / 2))))


def verdict(row: Mapping[str, Any]) -> str:
    """What a row says of the second; of a metric of which neither side is better, whether the two
    differ."""
    return row["verdict"] or ("differing" if excludes(row) else "-")


def excludes(row: Mapping[str, Any]) -> bool:
    """Whether the interval of a row lies on one side of 0."""
    return row["low"] is not None and (row["low"] > 0 or row["high"] < 0)


def _absorption(result: Mapping[str, Any]) -> list[str]:
    """How often labels are absorbed, where some were given."""
    part = result.get("absorption")
    if part is None:
        return []
    heads = f"{'absorbed (F1 of its latents)':30}{'better':8}{'A':>15}{'B':>15}"
    lines = ["", f"{heads}  {'B - A [95% interval]':32}{'least':>9}  B is"]
    for row in part["properties"]:
        sides = [f"{share(row[side]['rate'])} ({row[side]['main_f1']:.2f})" for side in SIDES]
        change = f"{cell(row, '+.4f'):32}{told(row['least']):>9}"
        values = "".join(f"{one:>15}" for one in sides)
        name = f"{row['label'][:29]:30}{'lower':8}"
        lines.append(f"{name}{values}  {change}  {row['verdict'] or '-'}")
    lines += [f"{label}: left out, {reason}" for label, reason in part["left_out"].items()]
    lines.append(
        "share of a label's tokens on which its latents are silent and another latent carries it; "
        f"last token of {part['texts']:,} texts, half of them to choose latents on"
    )
    return lines


def _found(result: Mapping[str, Any]) -> list[str]:
    matched, cofiring = result["matched"], result["cofiring"]
    how = "one to one" if matched["method"] == "hungarian" else "one to one among cosines from 0.5"
    alone = {side: f"{len(result['only'][side]):,}" for side in ("first", "second")}
    lines = [
        f"live features only in A {alone['first']}, only in B {alone['second']}: no partner above "
        f"{matched['threshold']}, neither by cosine nor by correlation"
    ]
    for what, part, by in (
        ("write alike", matched, f"{how}, cosine above {matched['threshold']}"),
        ("fire alike", cofiring, f"{cofiring['tokens']:,} tokens, correlation above 0.7"),
    ):
        mine, other = part["first"], part["second"]
        lines.append(
            f"{part['pairs']:,} pairs {what} ({by}): {share(mine)} of A's live features, "
            f"{share(other)} of B's (by chance {share(mine, 'null')})"
        )
    return lines


def _splitting(result: Mapping[str, Any]) -> list[str]:
    lines = []
    sides = {"first": ("A", "B"), "second": ("B", "A")}
    for side, (one, other) in sides.items():
        part = result["splitting"][side]
        covered = ", ".join(f"{row['parts']}: {share(row)}" for row in part["covered"])
        chance = share(part["covered"][-1], "null")
        lines.append(
            f"firings of a feature of {one} covered by {other}'s best {covered} (by chance "
            f"{chance}); {share(part['split'])} of {part['features']:,} features are split: no one "
            f"covers {result['splitting']['share']:.0%}, several do"
        )
    return lines


def share(field: Mapping[str, Any], name: str = "value") -> str:
    """A share for people."""
    return told(field[name], ".1%")


def several(result: Mapping[str, Any]) -> str:
    """Every two SAEs, and every two configurations."""
    parts = [pair(each) for each in result["pairs"]]
    for each in result["configurations"]:
        lines = [f"A {', '.join(each['first'])}", f"B {', '.join(each['second'])}", ""]
        heads = f"{'over seeds':30}{'better':8}{'n':>3}  {'B - A [95% interval]':32}{'least':>9}"
        lines.append(f"{heads}  B is")
        for row in each["differences"]:
            least = told(row["least"], f".{decimals(row)}f")
            change = f"{row['n']:>3}  {difference(row):32}{least:>9}"
            lines.append(f"{_name(row)}{change}  {verdict(row)}".rstrip())
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
