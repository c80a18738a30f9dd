"""The model of a run, loaded when a page first needs it, by a thread of its own, for all sessions.
Imports no Streamlit, and torch only in that thread.

    bench = model.wanted(folder).bench  # None while it is loading
    with model.alone():
        rows = prompting.read(bench, text).table
"""

import contextlib
import gc
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saelab.errors import UsageError
from saelab.runs import RunFolder

if TYPE_CHECKING:
    from saelab.prompting import Bench

KEPT = 2  # runs whose SAE stays in memory; of models one
Key = tuple[str, str, tuple[int, ...]]


class Loading(NamedTuple):
    """How far it is."""

    key: Key
    """by which `at` finds the run again"""
    bench: "Bench | None"
    """a run ready for texts; None until then"""
    stage: str
    """what is being done"""
    seconds: float
    """since it began"""
    problem: str
    """why it failed, "" if it did not"""


class _Work:
    """One run that is being loaded, or is."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.began = time.monotonic()
        self.stage, self.problem = "starting", ""
        self.bench: Bench | None = None
        self.answers: OrderedDict[tuple, Any] = OrderedDict()

    def told(self) -> Loading:
        return Loading(
            self.key, self.bench, self.stage, time.monotonic() - self.began, self.problem
        )


_works: "OrderedDict[Key, _Work]" = OrderedDict()
_models: dict[tuple, Any] = {}
_table = threading.Lock()
_one_at_a_time = threading.Lock()


def wanted(folder: Path, model: str | None = None) -> Loading:
    """How far the loading of a run and its model is, which begins where nobody has asked before.

    model: where the model lies now, if not where the run says. What failed stays so until `again`;
    a run whose SAE or index has changed is loaded anew.
    """
    key = _key(folder, model)
    with _table:
        work = _works.get(key)
        if work is None:
            work = _works[key] = _Work(key)
            start = threading.Thread(target=_load, args=(work, folder, model), daemon=True)
            start.start()
            _drop_old()
        _works.move_to_end(key)
        return work.told()


def again(folder: Path, model: str | None = None) -> None:
    """Forget that it failed, so that the next one who wants it has it loaded."""
    with _table:
        _works.pop(_key(folder, model), None)


def at(key: Key) -> "Bench":
    """A run that was loaded. Raises UsageError for one that others have taken the place of."""
    bench = _work(key).bench
    assert bench is not None  # whoever has its key has seen it loaded
    return bench


def answers(key: Key) -> "OrderedDict[tuple, Any]":
    """What has been computed with it, which goes when it goes. Raises UsageError as `at` does."""
    return _work(key).answers


def _work(key: Key) -> _Work:
    work = _works.get(key)
    if work is None:
        raise UsageError(f"{key[0]} has been put away for other runs meanwhile: read it again")
    return work


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within the block nobody else runs a model: what acts at its hooks is on the model itself,
    which all sessions share."""
    with _one_at_a_time:
        yield


def _key(folder: Path, model: str | None) -> Key:
    """The run as it lies there now."""
    run = RunFolder(folder)
    files = (run.header, run.features)
    times = tuple(path.stat().st_mtime_ns if path.is_file() else 0 for path in files)
    return str(folder.resolve()), model or "", times


def _drop_old() -> None:
    while len(_works) > KEPT:
        _works.popitem(last=False)


def _load(work: _Work, folder: Path, model: str | None) -> None:
    try:
        work.stage = "starting PyTorch"
        from saelab import prompting

        def load(name: Any, **options: Any) -> Any:
            work.stage = f"reading the model {name}"
            loaded = _shared(name, **options)
            work.stage = "checking that it is the run's"
            return loaded

        work.stage = "reading the SAE"
        with alone():
            work.bench = prompting.open(folder, model, load=load)
        gc.freeze()  # what PyTorch and transformers are made of stays, and need not be looked at
    # Whatever goes wrong here is shown on the page: nobody else would hear of it.
    except Exception as error:
        kind = (
            "" if isinstance(error, RuntimeError | ValueError | OSError) else type(error).__name__
        )
        work.problem = " ".join(f"{kind} {error}".split())


def _shared(name: Any, **options: Any) -> Any:
    """The model of that name, of which one is kept for the runs that share it."""
    from saelab import models

    key = (str(name), *sorted(options.items()))
    if key not in _models:
        loaded = models.load(name, **options)
        _models.clear()
        _models[key] = loaded
    return _models[key]
