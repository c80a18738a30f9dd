"""What several runs that differ by their seeds alone say together, in `saelab eval`."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saelab import SAE


def seeds(saes: dict[Path, "SAE"], results: dict[Path, dict]) -> list[dict]:
    """For each group of runs that differ by their seed alone: every metric's mean and spread, and
    how alike they are."""

    from saelab.analysis.comparison import configurations
    from saelab.evaluation import rows

    named = {str(folder): folder for folder in saes}
    of_one_place = {str(folder): sae for folder, sae in saes.items() if hasattr(sae, "W_dec")}
    grouped = configurations.groups(of_one_place)
    several = [[named[name] for name in group] for group in grouped if len(group) > 1]
    return [
        {
            "runs": [str(folder) for folder in group],
            **{
                row.key: _over_seeds([results[folder][row.key] for folder in group])
                for row in rows.of(results[group[0]])
            },
            "stability": _stability([saes[folder] for folder in group]),
        }
        for group in several
    ]


def _over_seeds(fields: list[dict]) -> dict:
    """A metric's mean over seeds with its interval, their standard deviation and number."""
    from saelab.statistics import over_seeds, spread

    values = [field["value"] for field in fields]
    return {**over_seeds(values).as_dict(), "spread": spread(values), "n": len(values)}


def _stability(saes: list["SAE"]) -> dict:
    """Each seed's decoder rows matched with the next seed's; means over these pairs."""
    from saelab import matching

    stabilities = [
        matching.stability(a.W_dec.detach(), b.W_dec.detach(), signed=a.sparsify.signed)
        for a, b in pairwise(saes)
    ]
    means = {
        name: sum(getattr(each, name) for each in stabilities) / len(stabilities)
        for name in matching.Stability._fields
    }
    return {**means, "threshold": matching.FOUND}
