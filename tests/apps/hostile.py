"""A run whose files are somebody else's: every text that they may hold is an image of another
address."""

import json
from pathlib import Path

from tests import toy_index as toy

IMAGE = "<img src=http://stranger.invalid/x.png onerror=window.pwned=1>"


def circuit() -> dict:
    """A circuit.json."""
    level = {"level": 0.5, "members": [IMAGE], "auc": 0.5, "average_precision": 0.5}
    prompt = {"clean": IMAGE, "corrupted": f"a {IMAGE}", "right": [IMAGE], "wrong": [IMAGE]}
    names = dict.fromkeys(["task", "method", "model", "metric"], IMAGE)
    numbers = dict.fromkeys(["metric_clean", "metric_corrupted", "metric_empty"], 0.5)
    numbers |= dict.fromkeys(["cpr", "cmd", "auc_layer_index", "auc_random"], 0.5)
    return {
        "schema": "saelab/circuits/1",
        **names,
        **numbers,
        "prompts": {"scoring": 1, "repeats": 1, "held_out": 1, "examples": [prompt]},
        "truth": {"kind": IMAGE, "levels": [level]},
        "heads": [{"layer": 0, "head": 0, "score": 0.5}],
        "faithfulness": [{"size": 1, "value": 0.5, "low": 0.4, "high": 0.6}],
        "edges": [{"source": IMAGE, "target": IMAGE, "score": 0.5}],
    }


def make_run(folder: Path) -> Path:
    """The run's folder; its report is damaged, and a circuit beside it lacks what a page shows."""
    toy.make_run(folder)
    (folder / "report.json").write_text("{")
    (folder / "circuit.json").write_text(json.dumps(circuit()))
    bare = folder.with_name(f"{folder.name}-bare")
    bare.mkdir()
    (bare / "circuit.json").write_text('{"schema": "saelab/circuits/1"}')
    return folder
