"""Runs that make one set: a dictionary for each of several places of one model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saelab import folders, models, opening
from saelab.errors import UsageError
from saelab.opening import Opened
from saelab.runs import RunFolder


def members(named: Sequence[Path | str]) -> list[Path]:
    """The runs that are named, and those inside folders that are no runs themselves.

    >>> members(["runs/transcoders"])
    """
    runs: list[Path] = []
    for folder in map(Path, named):
        inside = {} if RunFolder(folder).is_run() else folders.find([folder])
        found = [*inside.values()]
        # What lies in a run, such as one layer of a cross-layer transcoder, is part of it.
        runs += [one for one in found if one.parent not in found] or [folder]
    return runs


def open_set(named: Sequence[Path | str], model: Any = None, **options: Any) -> list[Opened]:
    """The members of a set with their model, which is loaded once; see `opening.open_all`. A
    cross-layer transcoder may be one. Raises UsageError for none, and for a run of another model
    than the first one's.

    >>> model = open_set(["runs/transcoders"], needs=("model",))[0].model
    """
    runs = members(named)
    if not runs:
        raise UsageError("no run named: saelab graph --run RUN [--run RUN ...] --prompt TEXT")
    opened = opening.open_all(runs, model, any_kind=True, **options)
    for one in opened[1:]:
        if one.sae.origin.model is not None:
            words = f"{one.folder.path}, beside {opened[0].folder.path},"
            models.check(opened[0].model, one.sae.origin.model, words)
    return opened
