"""In how many runs of other seeds each feature comes again, as `saelab compare --stability` wrote
it beside the index.

Shapes: F features.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.errors import FailedRun
from saelab.files import read_object


class Stable(NamedTuple):
    """What is known of every feature."""

    share: NDArray
    """[F] share of the other runs that have it: the larger one of `cosine` and `cofiring`"""
    columns: dict[str, NDArray]
    """[F] by name: `cosine`, `cofiring`, `subspace` (nan: no group), `start`"""
    nulls: dict[str, float | None]
    """what chance gives for `cosine`, `cofiring`, `subspace`, as a mean over live features"""
    n_others: int
    """how many other runs"""

    def numbers(self, *, everywhere: bool) -> list[int]:
        """Features that are in every other run, or those in none."""
        return np.flatnonzero(self.share == (1 if everywhere else 0)).tolist()


def read(path: Path, sae: str | None, n_features: int) -> Stable | None:
    """A run's stability.json; None where there is none, it is damaged or of another SAE.

    >>> stable = read(RunFolder("runs/a").stability, index.sae, index.n_features)
    """
    try:
        document = read_object(path) if path.is_file() else {}
    except (FailedRun, OSError):
        return None
    columns = {
        name: np.array([np.nan if value is None else value for value in column], float)
        for name, column in document.get("features", {}).items()
    }
    if not columns or document["sae"] not in (None, sae) or len(columns["fired"]) != n_features:
        return None
    share_F = np.maximum(columns["cosine"], columns["cofiring"])
    nulls = {name: mean["null"] for name, mean in document["means"].items()}
    return Stable(share_F, columns, nulls, len(document["others"]))
