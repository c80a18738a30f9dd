"""What can be added from outside: metrics, sources, sparsifiers and formats of SAE files."""

import importlib
import inspect
from typing import Any, NamedTuple

from saelab.errors import UsageError


class Kind(NamedTuple):
    """One thing that can be added."""

    module: str
    """whose `register` takes it, and refuses what it cannot use"""
    takes: str
    """what that is given, in words"""


KINDS = {
    "metric": Kind("saelab.evaluation.rows", "its row, a saelab.Metric"),
    "source": Kind("saelab.activations.registry", "its name and a function that makes it"),
    "sparsifier": Kind("saelab.sparsify", "its name and a function from pre-activations to a mask"),
    "format": Kind("saelab.formats", "its row, a saelab.Format"),
}


def register(kind: str, *what: Any, **options: Any) -> None:
    """Add a metric, a source, a sparsifier or a format; reports, `Cache.write`, `train` and
    `SAE.load` know it from then on, in this process.

    Raises UsageError for another kind, for something else than the kind takes, and for a name that
    is taken.

    >>> import saelab, torch
    >>> from saelab.activations.from_arrays import from_arrays
    >>> row = saelab.Metric("twice_l0", "twice L0", "2 L0", "2 x the features that fire per token",
    ...                     "none", lambda sums: 2 * sums["l0"] / sums["tokens"])
    >>> saelab.register("metric", row)
    >>> saelab.register("source", "noise", lambda n: from_arrays(torch.randn(n, 8)))
    >>> saelab.Cache.write("caches/noise", "noise", n=1000).hooks
    ['acts']
    >>> saelab.register("sparsifier", "loud", lambda pre_BF: pre_BF.abs() > 0.5, signed=True)
    >>> saelab.SAE(8, 32, saelab.sparsify.named("loud", k=1))
    SAE(8 -> 32 -> 8, loud)
    """
    if kind not in tuple(KINDS):
        raise UsageError(f"no kind {kind!r} to register; there are {', '.join(KINDS)}")
    add = importlib.import_module(KINDS[kind].module).register
    try:
        inspect.signature(add).bind(*what, **options)
    except TypeError:
        raise UsageError(
            f"register({kind!r}, ...) takes {KINDS[kind].takes}: {len(what)} arguments are given"
        ) from None
    add(*what, **options)
