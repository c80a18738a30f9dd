"""Running a piece of work on several ranks, each a fork of the process that has everything
loaded."""

import os
import pickle
import tempfile
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import distributed as dist

from saelab import ranks


def outcomes(n: int, work: Callable[[], Any]) -> list[Any]:
    """What `work` gives on each of n ranks that torchrun might have started; an exception that it
    raises is its outcome, None that of a rank that was killed."""
    # As torchrun does it, the store is not one of the ranks'.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork where threads run
        children = [_fork(rank, n, store.port, work, Path(folder)) for rank in range(n)]
        for child in children:
            os.waitpid(child, 0)
        files = [Path(folder) / str(rank) for rank in range(n)]
        return [pickle.loads(f.read_bytes()) if f.exists() else None for f in files]


def results(n: int, work: Callable[[], Any]) -> list[Any]:
    """`outcomes` of work that must succeed."""
    every = outcomes(n, work)
    for each in every:
        if isinstance(each, BaseException):
            raise AssertionError("".join(each.__notes__)) from each
    return every


def _fork(rank: int, n: int, port: int, work: Callable[[], Any], folder: Path) -> int:
    child = os.fork()
    if child:
        return child
    try:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        ranks.TIMEOUT = timedelta(seconds=60)
        try:
            outcome = work()
        except BaseException as error:
            error.add_note(traceback.format_exc())
            outcome = error
        (folder / str(rank)).write_bytes(pickle.dumps(outcome))
    finally:
        os._exit(0)
