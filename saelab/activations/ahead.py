"""Items made by a thread ahead of whoever takes them."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
Check = Callable[[], None]


class Closed(Exception):
    """Nobody wants the rest any more."""


class Ahead(Generic[T]):
    """Iterator over what `make(check)` yields in a thread of its own, which starts at once.

    n: how many items there are at most, from the start of their making until the next one is asked
    for; so items may be filled into n buffers in turn. make calls `check` between parts of an item:
    it raises where the rest is not wanted. What goes wrong in the thread is raised here, at the
    item that it struck. Whoever makes this closes it, and is no generator: one that is collected
    while its thread waits would wait for it for ever.

        with contextlib.closing(Ahead(lambda check: map(slow, paths))) as items:
            for item in items:
                use(item)
    """

    def __init__(self, make: Callable[[Check], Iterator[T]], n: int = 2) -> None:
        self._room, self._made = threading.Semaphore(n), queue.SimpleQueue[T | BaseException]()
        self._closed, self._ended = threading.Event(), None
        self._uses_one = False
        arguments = (make, self._room, self._made, self._closed)
        self._thread = threading.Thread(target=_work, args=arguments, name="ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> "Ahead[T]":
        return self

    def __next__(self) -> T:
        if self._closed.is_set():
            raise RuntimeError("this is closed: nothing is read ahead any more")
        if self._ended is not None:
            raise self._ended
        if self._uses_one:
            self._room.release()
        item = self._made.get()
        self._uses_one = True
        if isinstance(item, BaseException):
            self._ended = item
            raise item
        return item

    def close(self) -> None:
        """End the thread, and wait until it has ended: at most a second, after which one that
        hangs, as on a file of a server that is gone, is left to itself."""
        self._closed.set()
        self._room.release()
        self._thread.join(1)


def _work(
    make: Callable[[Check], Iterator[T]],
    room: threading.Semaphore,
    made: "queue.SimpleQueue[T | BaseException]",
    closed: threading.Event,
) -> None:
    """The thread. It knows nothing of its owner, which may be collected meanwhile."""

    def check() -> None:
        if closed.is_set():
            raise Closed

    try:
        items = make(check)
        while room.acquire():
            check()
            made.put(next(items))
    except Closed:
        return
    except BaseException as error:  # of whatever kind: it is raised where the item is asked for
        made.put(error)
