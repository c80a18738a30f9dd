"""Concept alignment in `saelab eval --concepts`."""

from typing import TYPE_CHECKING, Any

from .common import cell, told
from .progress import stage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from saelab import SAE
    from saelab.opening import Opened

POSITIONS = {"train": 30_000, "held_out": 15_000}


def check(folders: "list[Path]", cache: "Path | None") -> None:
    """Raise UsageError, before a model is loaded, for a cache without Python files or images."""
    from saelab import opening
    from saelab.activations.seen import is_of_images
    from saelab.evaluation import labelled

    for run in opening.open_all(folders, cache=cache, needs=("cache",)):
        if not is_of_images(run.cache):
            labelled.check_python(run.cache)


def concepts(
    saes: "Mapping[str, SAE]", opened: "Opened", images: str | None, seed: int
) -> dict[str, Any]:
    """The report's part: of each dictionary how well single features tell concepts."""
    from saelab.activations.seen import Looking, is_of_images
    from saelab.evaluation import concepts

    folder, sae, cache_, model = opened
    hook = sae.origin.hook
    stage(f"{folder.path}: which concepts single features tell")
    if is_of_images(cache_):
        looking = Looking(cache_, model, images)
        splits = [concepts.of_images(cache_, hook, looking, *pair) for pair in POSITIONS.items()]
    else:
        read = (cache_, hook, model.tokenizer)
        splits = [concepts.of_text(*read, *pair) for pair in POSITIONS.items()]
    aligned = concepts.table(saes, splits[0], splits[1], seed=seed)
    return {name: concepts.as_dict(each) for name, each in aligned.items()}


def text(aligned: dict[str, Any]) -> str:
    """For people: means over concepts, then each concept as the first dictionary tells it."""
    heads = ("precision", "purity", "coverage")
    width = max(18, *(len(name) + 1 for name in aligned))
    titles = ("average precision", "purity of 16", "precision >= 0.3")
    lines = [f"\n{'concepts':{width}}" + "".join(f"{title:>30}" for title in titles)]
    for name, row in aligned.items():
        cells = "".join(f"{cell(row[head]):>30}" for head in heads)
        lines.append(f"{name.replace('_', ' '):{width}}{cells}")
    first = next(iter(aligned.values()))
    nulls = "".join(f"{told(first[head]['null']):>30}" for head in heads)
    lines.append(f"{'shuffled labels':{width}}{nulls}")
    for one in first["concepts"]:
        side = "-" if one["side"] < 0 else ""
        told_by = f"{side}{one['feature']}"
        lines.append(f"  {one['name']:{width}} {told_by:>8} {cell(one['precision']):>28}")
    return "\n".join(lines)
