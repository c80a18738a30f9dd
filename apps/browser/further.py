"""Further contexts of a feature, read from the cache that its index was made of, in the background.
Imports no Streamlit, and torch only in that thread.

    further.wanted(Path("runs/demo"), 7, 10).result  # None until they are read
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saelab.errors import UsageError
from saelab.features.records import Example
from saelab.runs import RunFolder

from .background import Progress, Works

KEPT = 16  # answers

Say = Callable[[str], None]
_works: Works[list[Example]] = Works(KEPT)
_open: dict[tuple, tuple[Any, Any]] = {}
_one_at_a_time = threading.Lock()


def wanted(folder: Path, feature: int, n: int) -> Progress[list[Example]]:
    """How far the reading of up to n contexts is; see `saelab.features.more`. What failed, as where
    the cache is gone, stays so until `again`."""
    key = (*_key(folder), feature, n)
    return _works.wanted(key, lambda say: _read(folder, feature, n, say))


def again(folder: Path, feature: int, n: int) -> None:
    """Forget that it failed."""
    _works.forget((*_key(folder), feature, n))


def _key(folder: Path) -> tuple:
    """The SAE and the index as they lie there now."""
    run = RunFolder(folder)
    times = (path.stat().st_mtime_ns for path in (run.header, run.features) if path.is_file())
    return (str(folder), *times)


def _read(folder: Path, feature: int, n: int, say: Say) -> list[Example]:
    say("starting PyTorch")
    from saelab.features import more
    from saelab.features.reader import FeatureIndex

    with _one_at_a_time:
        sae, cache = _opened(folder, say)
        say(f"reading {n} contexts of {cache.path.name}")
        with FeatureIndex(RunFolder(folder).features) as index:
            _check(folder, index)
            return more.examples(sae, cache, index, feature, n)


def _opened(folder: Path, say: Say) -> tuple[Any, Any]:
    """The run's SAE and cache, of which the last ones stay open."""
    from saelab import opening

    key = _key(folder)
    if key not in _open:
        say("opening the SAE and its cache")
        _, sae, cache, _ = opening.open(folder, needs=("cache",))
        _open.clear()
        _open[key] = (sae, cache)
    return _open[key]


def _check(folder: Path, index: Any) -> None:
    run = RunFolder(folder)
    if index.summary.get("sae") not in (None, run.sae_digest()):
        raise UsageError(f"{run.features} is of another SAE: run `saelab index {folder}` again")
