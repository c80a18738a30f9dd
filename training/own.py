"""Training on activations that one holds oneself: a cache of them is kept in the run's folder, by
which every later verb works.

Shapes: N rows, C contexts, T positions, D width.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import Tensor

from saelab.activations import Cache
from saelab.activations.from_arrays import CONTEXT, from_arrays
from saelab.activations.given import arrays
from saelab.errors import UsageError
from saelab.files import undone
from saelab.runs import RunFolder

from .checks import check
from .config import Config
from .folder import refuse_occupied
from .loop import Progress, train

RUNS = Path("runs")
CONTEXTS = 200  # at least, one in twenty of which is held out: intervals are over them
LEAST = 100  # rows
EPOCHS = 20  # at most, unless `tokens` says otherwise
STEPS = 8  # that an epoch has at least, unless `batch` says otherwise


def train_on(
    acts: Any,
    *,
    out: Path | str | None = None,
    ids: Mapping[str, Any] | None = None,
    context: int | None = None,
    dtype: str = "float32",
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Train an SAE on one's own activations; returns the run's folder, which keeps a cache of them.

    acts: a tensor, an array or a DataFrame [N, D], contexts [C, T, D], a mapping of such by hook
    name, or an iterable of batches (`saelab.activations.given`), read as far as `tokens` say. out:
    the run's folder (default: runs/own, or the first of runs/own-2, ... that is free). ids,
    context: as of `from_arrays`. dtype: of the cache. options: fields of `Config` (a mapping's
    `hook` and `target` among them). Unless they say otherwise a run has 2M tokens, but at most 20
    epochs, and batches of 2,048 rows, but at most an eighth of them. Raises UsageError for fields
    that there are not or that cannot go together, and for activations that are none, or too few.

    >>> folder = train_on(x_ND, k=16, features=1024)
    >>> report = evaluate(SAE.load(folder), Cache(folder / "cache"))
    """
    folder = _free() if out is None else Path(out)
    place = RunFolder(folder)
    known = {field.name for field in fields(Config)} - {"cache", "out", "live"}
    if unknown := sorted(set(options) - known):
        raise UsageError(f"no option {unknown[0]!r}; there are {', '.join(sorted(known))}")
    check(Config(cache=str(place.cache), out=str(folder), **{**options, "tokens": 2**40}))
    refuse_occupied(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # What a loader gives lies in a file without a name, which no kill leaves behind.
    with undone(folder) as keep, tempfile.TemporaryFile(dir=folder.parent) as spool:
        held = arrays(acts, spool, options.get("tokens"))
        _check_rows(held)
        source = from_arrays(held, ids, context=context or _context(held), dtype=dtype)
        cache = Cache.write(place.cache, source)
        sizes = {"tokens": _tokens(cache), "batch": _batch(cache), **options}
        config = Config(cache=str(cache.path), out=str(folder), **sizes)

        def stepped(*measured: Any) -> None:
            keep()  # from then on there is something to go on with
            if progress is not None:
                progress(*measured)

        train(config, progress=stepped)
    return folder


def _free() -> Path:
    names = (RUNS / f"own{f'-{number}' if number > 1 else ''}" for number in range(1, 10**6))
    return next(name for name in names if not name.exists())


def _check_rows(held: Mapping[str, Tensor]) -> None:
    """Raise UsageError for too few of them to say anything."""
    rows = min((one[..., 0].numel() for one in held.values() if one.ndim), default=0)
    if rows < LEAST:
        raise UsageError(
            f"{rows} rows of activations are too few to train on: give {LEAST} or more"
        )


def _context(held: Mapping[str, Tensor]) -> int | None:
    """Rows that make up a context, so few that some contexts are held out; None where the arrays
    say it themselves."""
    one = next(iter(held.values()))
    if one.ndim != 2:
        return None
    return max(1, min(CONTEXT, len(one) // CONTEXTS))


def _tokens(cache: Cache) -> int:
    n_tokens = cache.n_tokens()
    return max(n_tokens, min(Config.tokens, EPOCHS * n_tokens))


def _batch(cache: Cache) -> int:
    return max(1, min(Config.batch, cache.n_tokens() // STEPS))
