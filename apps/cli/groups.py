"""Runs that are named by their own folders, by folders of runs, or by patterns; and runs in groups
that differ by their seeds alone."""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from saelab.errors import UsageError
from saelab.folders import find
from saelab.runs import RunFolder

if TYPE_CHECKING:
    from saelab import SAE
    from saelab.analysis.comparison import Together
    from saelab.evaluation.labelled import Labelled


class Measured(NamedTuple):
    """Runs measured on the same tokens, by name."""

    folders: dict[str, Path]
    saes: dict[str, "SAE"]
    together: "Together"
    known: "Labelled | None"
    """activations with labels, where --labels names some"""


def expanded(places: Sequence[Path]) -> tuple[Path, ...]:
    """Runs, each once: a folder that is none stands for the runs in it, a pattern such as
    'runs/k32-*' for what it matches. Raises UsageError for a pattern that matches nothing."""
    runs: dict[Path, None] = {}
    for place in places:
        runs |= dict.fromkeys(_of(place))
    return tuple(runs)


def _of(place: Path) -> list[Path]:
    run = RunFolder(place)
    if run.is_run() or run.is_unfinished():
        return [place]
    if not place.exists() and glob.has_magic(str(place)):
        if matched := sorted(Path(place.anchor).glob(str(place.relative_to(place.anchor)))):
            return list(expanded(matched))
        raise UsageError(f"no run is named {place}: give run folders, or a pattern that fits some")
    return list(find([place]).values()) or [place]


def check_group(names: Sequence[str], saes: Mapping[str, "SAE"]) -> None:
    """Raise UsageError unless the runs of a group differ by their seeds alone, each having its
    own."""
    from saelab.analysis.comparison.configurations import but_for_the_seed

    first, seeds = names[0], {saes[name].origin.seed for name in names}
    for name in names[1:]:
        if but_for_the_seed(saes[name]) != but_for_the_seed(saes[first]):
            raise UsageError(
                f"{name} and {first} differ by more than their seed: a group is one configuration "
                "with several seeds"
            )
    if len(seeds) < len(names):
        raise UsageError(f"of {', '.join(names)} two have one seed: a group has each seed once")


def matched(
    first: Sequence[str], second: Sequence[str], saes: Mapping[str, "SAE"]
) -> list[tuple[str, str]]:
    """Pairs of two groups' runs of one seed; where they have none in common, one after another."""
    by_seed = {saes[name].origin.seed: name for name in second}
    pairs = [(a, by_seed[s]) for a in first if (s := saes[a].origin.seed) in by_seed]
    return pairs or list(zip(first, second, strict=False))
