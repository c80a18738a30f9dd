"""Several runs from one recipe: a field given as a list makes a run of each of its values, several
make their product."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from saelab.errors import UsageError

from .checks import ONE_PASS
from .config import Config


class Sweep(NamedTuple):
    """base: the fields that are one value, and the first of those that are several. over: the
    values of the latter."""

    base: Config
    over: dict[str, tuple]

    def configs(self) -> list[Config]:
        """The runs, each in a folder of base.out that its fields name; the base alone if nothing is
        swept over."""
        if not self.over:
            return [self.base]
        rows = [
            dict(zip(self.over, row, strict=True)) for row in itertools.product(*self.over.values())
        ]
        return [
            replace(
                self.base, **row, out=str(Path(self.base.out) / name(row)) if self.base.out else ""
            )
            for row in rows
        ]


def name(row: Mapping[str, Any]) -> str:
    """`k=32,seed=1`: a run's folder in its sweep's."""
    return ",".join(
        f"{field}={'-'.join(map(str, v)) if isinstance(v, tuple) else v}"
        for field, v in row.items()
    )


def of(values: Mapping[str, Any]) -> Sweep:
    """The sweep over the fields of a recipe that are tuples; of prefixes, itself a tuple, over a
    tuple of tuples.

    Raises UsageError for a list without entries, or a list of what runs of one pass share.
    """
    over = {
        field: value
        for field, value in values.items()
        if isinstance(value, tuple) and _several(field, value)
    }
    for field, value in over.items():
        if not value:
            raise UsageError(f"{field} is a list without entries: give it at least one value")
        if field in (*ONE_PASS, "out"):
            raise UsageError(
                f"{field} cannot be a list: runs of a sweep share one pass over one cache; start "
                "one sweep for each"
            )
    return Sweep(
        replace(Config(), **{**values, **{field: value[0] for field, value in over.items()}}), over
    )


def _several(field: str, value: tuple) -> bool:
    return field != "prefixes" or any(isinstance(one, tuple) for one in value)
