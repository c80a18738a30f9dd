"""Finding run and circuit directories, by the names the browser shows them under. Imports nothing
heavy."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

PLACES = "SAELAB_BROWSE"  # environment variable: JSON list of the folders `saelab browse` was given
DEPTH = 3  # folders below a given one that are looked into
INSIDE = {"sae", "checkpoints", "wandb"}  # parts of a run, never runs


def is_run(folder: Path) -> bool:
    """Whether a folder holds a trained SAE, an index, or the record of a training."""
    if (folder / "features.db").is_file() or (folder / "sae" / "sae.json").is_file():
        return True
    return (folder / "config.yaml").is_file() and (folder / "metrics.jsonl").is_file()


def is_circuit(folder: Path) -> bool:
    """Whether a folder holds what `saelab circuits` writes."""
    return (folder / "circuit.json").is_file()


def _below(folder: Path, depth: int, wanted: Callable[[Path], bool]) -> Iterator[Path]:
    if wanted(folder):
        yield folder
    if depth:
        for entry in sorted(folder.iterdir()):
            if entry.is_dir() and not entry.name.startswith(".") and entry.name not in INSIDE:
                yield from _below(entry, depth - 1, wanted)


def find_runs(
    places: Iterable[Path | str], wanted: Callable[[Path], bool] = is_run
) -> dict[str, Path]:
    """The runs (or folders `wanted`) at and below some: name (path below the place, or the place's
    own name) to absolute folder.

    A name that two runs would share is replaced by the whole path. A place that is no folder holds
    no runs.
    """
    named: dict[str, Path] = {}
    for place in (Path(place).absolute() for place in places):
        for folder in _below(place, DEPTH, wanted) if place.is_dir() else ():
            if folder in named.values():
                continue
            name = place.name if folder == place else folder.relative_to(place).as_posix()
            named[str(folder) if name in named else name] = folder
    return named
