"""Work done one after the other in a thread of its own, while its caller computes what comes
next."""

import queue
import threading
from collections.abc import Callable
from types import TracebackType

AHEAD = 1  # works that wait while one is done
PATIENCE = 5.0  # seconds that a failing caller gives work that other processes may hold up


class InOrder:
    """Does what it is given in order, within a block; at most AHEAD works wait, then the caller
    does. After one that fails none is begun, and its error is raised at the caller's next call or
    at the block's end.

        with InOrder() as writing:
            for shard in shards:
                writing.do(partial(write, shard))
    """

    def __init__(self, patience: float | None = None) -> None:
        """patience: seconds that the end of a failing block waits (None: as long as it takes)."""
        self._waiting: queue.Queue[Callable[[], object] | None] = queue.Queue(AHEAD)
        self._failed: BaseException | None = None
        self._patience = patience
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while self._one():
            pass

    def _one(self) -> bool:
        # The work is this call's alone: what it holds is freed before the next is waited for.
        work = self._waiting.get()
        if work is not None and self._failed is None:
            try:
                work()
            except BaseException as error:
                self._failed = error
        return work is not None

    def check(self) -> None:
        """Raise what went wrong so far."""
        if self._failed is not None:
            raise self._failed

    def do(self, work: Callable[[], object]) -> None:
        """Let it be done after everything before it. Raises what went wrong so far."""
        self.check()
        self._waiting.put(work)

    def __enter__(self) -> "InOrder":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        patience = None if error is None else self._patience
        try:
            self._waiting.put(None, timeout=patience)
            self._thread.join(patience)
        except queue.Full:
            return
        # Who is interrupted because another rank died, or as the disk filled, is to say that.
        if error is None or isinstance(error, KeyboardInterrupt):
            self.check()
