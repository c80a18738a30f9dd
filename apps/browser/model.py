"""The model of a run, loaded when a page first needs it, by a thread of its own, for all sessions.
Imports no Streamlit, and torch only in that thread.

    bench = model.wanted(folder).bench  # None while it is loading
    with model.alone():
        rows = prompting.read(bench, text).table
"""

import contextlib
import gc
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saelab.errors import UsageError
from saelab.runs import RunFolder

from .background import Works

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

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.bench is not None or bool(self.problem)


class _Loaded(NamedTuple):
    """A run that is ready."""

    bench: "Bench"
    answers: "OrderedDict[tuple, Any]"
    """what has been computed with it"""


_works: Works[_Loaded] = Works(KEPT)
_models: dict[tuple, Any] = {}
_one_at_a_time = threading.Lock()


def wanted(folder: Path | None, model: str | None = None) -> Loading:
    """How far the loading of a run and its model is, which begins where nobody has asked before.

    folder: None for a model alone. model: where the model lies now, if not where the run says. What
    failed stays so until `again`; a run whose SAE or index has changed is loaded anew.
    """
    key = _key(folder, model)
    loaded, stage, seconds, problem = _works.wanted(key, lambda say: _load(folder, model, say))
    return Loading(key, loaded and loaded.bench, stage, seconds, problem)


def again(folder: Path | None, model: str | None = None) -> None:
    """Forget that it failed, so that the next one who wants it has it loaded."""
    _works.forget(_key(folder, model))


def at(key: Key) -> "Bench":
    """A run that was loaded. Raises UsageError for one that others have taken the place of."""
    return _loaded(key).bench


def answers(key: Key) -> "OrderedDict[tuple, Any]":
    """What has been computed with it, which goes when it goes. Raises UsageError as `at` does."""
    return _loaded(key).answers


def _loaded(key: Key) -> _Loaded:
    loaded = _works.done(key)
    if loaded is None:
        raise UsageError(f"{key[0]} has been put away for other runs meanwhile: read it again")
    return loaded


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Within the block nobody else runs a model: what acts at its hooks is on the model itself,
    which all sessions share."""
    with _one_at_a_time:
        yield


def _key(folder: Path | None, model: str | None) -> Key:
    """The run as it lies there now."""
    if folder is None:
        return "", model or "", ()
    run = RunFolder(folder)
    files = (run.header, run.features)
    times = tuple(path.stat().st_mtime_ns if path.is_file() else 0 for path in files)
    return str(folder), model or "", times


def _load(folder: Path | None, model: str | None, say: Callable[[str], None]) -> _Loaded:
    say("starting PyTorch")
    from saelab import prompting

    def load(name: Any, **options: Any) -> Any:
        say(f"reading the model {name}")
        loaded = _shared(name, **options)
        say("checking that it is the run's")
        return loaded

    say("reading the SAE")
    with alone():
        if folder is None:
            bench = prompting.bare(load(model or "bundled"))
        else:
            bench = prompting.open(folder, model, load=load)
    gc.freeze()  # what PyTorch and transformers are made of stays, and need not be looked at
    return _Loaded(bench, OrderedDict())


def _shared(name: Any, **options: Any) -> Any:
    """The model of that name, of which one is kept for the runs that share it."""
    from saelab import models

    key = (str(name), *sorted(options.items()))
    if key not in _models:
        loaded = models.load(name, **options)
        _models.clear()
        _models[key] = loaded
    return _models[key]
