"""Work that a page begins and does not wait for: each by a thread of its own, once for all
sessions. Imports no Streamlit.

    works = Works(kept=2)
    works.wanted(key, lambda say: slowly(say)).result  # None until it is done
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
Make = Callable[[Callable[[str], None]], T]


class Progress(NamedTuple, Generic[T]):
    """How far a work is."""

    result: T | None
    """None until it is done"""
    stage: str
    """what is being done"""
    seconds: float
    """since it began"""
    problem: str
    """why it failed, "" if it did not"""

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.result is not None or bool(self.problem)


class _Work(Generic[T]):
    def __init__(self) -> None:
        self.began = time.monotonic()
        self.stage, self.problem = "starting", ""
        self.result: T | None = None

    def say(self, stage: str) -> None:
        self.stage = stage

    def told(self) -> Progress[T]:
        return Progress(self.result, self.stage, time.monotonic() - self.began, self.problem)

    def do(self, make: Make[T]) -> None:
        try:
            self.result = make(self.say)
        # Whatever goes wrong here is shown on the page: nobody else would hear of it.
        except Exception as error:
            expected = isinstance(error, RuntimeError | ValueError | OSError)
            kind = "" if expected else type(error).__name__
            self.problem = " ".join(f"{kind} {error}".split())


class Works(Generic[T]):
    """Works by their keys, of which the `kept` last asked for stay."""

    def __init__(self, kept: int) -> None:
        self.kept = kept
        self._works: OrderedDict[Hashable, _Work[T]] = OrderedDict()
        self._table = threading.Lock()

    def wanted(self, key: Hashable, make: Make[T]) -> Progress[T]:
        """How far a work is, which begins where nobody has asked for it before. make: gives its
        result, and says its stages by the function that it gets. What failed stays so until
        `forget`."""
        with self._table:
            work = self._works.get(key)
            if work is None:
                work = self._works[key] = _Work()
                threading.Thread(target=work.do, args=(make,), daemon=True).start()
                while len(self._works) > self.kept:
                    self._works.popitem(last=False)
            self._works.move_to_end(key)
            return work.told()

    def done(self, key: Hashable) -> T | None:
        """Its result; None of one that is not done, or has been put away for others."""
        work = self._works.get(key)
        return work.result if work else None

    def forget(self, key: Hashable) -> None:
        """Have the next one who wants it begin anew."""
        with self._table:
            self._works.pop(key, None)

    def clear(self) -> None:
        """Put all away."""
        with self._table:
            self._works.clear()
