"""Which folders at and below some places are runs, by the names that they are shown under."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from saelab.runs import RunFolder

DEPTH = 3  # folders below a given one that are looked into
INSIDE = {"sae", "checkpoints", "cache", "controls", "wandb"}  # parts of a run, never runs


def _below(folder: Path, depth: int, wanted: Callable[[RunFolder], bool]) -> Iterator[Path]:
    try:
        is_one = wanted(RunFolder(folder))
        within = sorted(path for path in folder.iterdir() if path.is_dir()) if depth else []
    except OSError:
        return  # it may not be listed: another user's, lost+found, a disk that is gone
    if is_one:
        yield folder
    for inside in within:
        if not inside.name.startswith(".") and inside.name not in INSIDE:
            yield from _below(inside, depth - 1, wanted)


def find(
    places: Iterable[Path | str], wanted: Callable[[RunFolder], bool] = RunFolder.is_run
) -> dict[str, Path]:
    """The runs (or folders `wanted`) at and below some: name (path below the place, or the place's
    own name) to folder, under the place as it is given.

    A name that two runs would share is replaced by the whole path. A place that is no folder holds
    no runs.
    """
    named: dict[str, Path] = {}
    seen: set[Path] = set()
    for place in map(Path, places):
        for folder in _below(place, DEPTH, wanted):
            whole = folder.absolute()
            if whole in seen:
                continue
            seen.add(whole)
            own = folder == place
            name = place.absolute().name if own else folder.relative_to(place).as_posix()
            named[str(folder) if name in named else name] = folder
    return named
