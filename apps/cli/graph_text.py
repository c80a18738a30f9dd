"""What `saelab graph` prints for people."""

from pathlib import Path
from typing import Any

from saelab.runs import RunFolder

from .common import cell

SHOWN = 12  # prompts listed; graphs.json has all
COLUMNS = {
    "held": "held, as attribution assumes",
    "free": "free replacement model",
    "model": "the model itself",
    "patterns": "held, but attention moves",
    "norms": "held, but norms move",
    "features": "held, but features switch",
    "mlps": "held, but MLPs are its own",
    "no patterns": "the model, attention held",
}


def text(result: dict[str, Any], out: Path) -> str:
    """The table of prompts, the scores, the faithfulness."""
    parts = [_prompts(result["prompts"]), _scores(result["scores"])]
    if grouped := result.get("supernodes"):
        share, tokens = cell(grouped["grouped"], ".2f"), grouped["tokens"]
        by_chance = f"{grouped['grouped']['null']:.2f} by chance"
        parts.append(f"{share} of features in supernodes ({by_chance}), by {tokens:,} tokens")
    if result["faithfulness"]:
        parts.append(_faithfulness(result["faithfulness"]))
    written = f"{RunFolder(out).graphs} written; next: saelab browse {out}"
    return "\n\n".join([*parts, written])


def _prompts(rows: list[dict[str, Any]]) -> str:
    lines = ["next token      features    links       s  prompt"]
    for row in rows[:SHOWN]:
        end = row["prompt"][-50:].replace("\n", "\\n")
        lines.append(
            f"{row['next_token']!r:14} {row['n_features']:9,} {row['n_edges']:8,} "
            f"{row['seconds']:7.1f}  {end}"
        )
    if len(rows) > SHOWN:
        lines.append(f"... {len(rows) - SHOWN} more")
    return "\n".join(lines)


def _scores(scores: dict[str, Any]) -> str:
    floor = cell(scores["floor"], ".3f")
    return "\n".join(
        [
            f"replacement   {cell(scores['replacement'], '.3f')}, without features {floor}",
            f"completeness  {cell(scores['completeness'], '.3f')} over features and logits, "
            f"{cell(scores['circuit_tracer_completeness'], '.3f')} as circuit-tracer counts",
        ]
    )


def _faithfulness(fields: dict[str, Any]) -> str:
    lines = [
        f"foretold against measured, {fields['n_ablated']} features ablated one by one",
        f"{'':30} {'correlation':24} {'of controls':12} slope",
    ]
    for name, title in COLUMNS.items():
        if name not in fields:
            continue
        correlation, slope = fields[name]["correlation"], fields[name]["slope"]
        null = "-" if correlation["null"] is None else f"{correlation['null']:.3f}"
        lines.append(f"{title:30} {cell(correlation, '.3f'):24} {null:12} {cell(slope, '.3f')}")
    return "\n".join(lines)
