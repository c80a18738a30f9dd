"""Running a piece of work on several ranks, each a process of its own.

They are forks of a server that has everything loaded and runs no thread: a fork of the process that
runs the tests, where threads run, may inherit a lock that nobody will ever open.
"""

import faulthandler
import multiprocessing
import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pytest
from torch import distributed as dist

from saelab import ranks

LIMIT = 150  # seconds, more than what waits for a rank that is gone
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["training.run", "saelab.kernels.cpu.backend", "pytest"])


def outcomes(n: int, work: Callable[[], Any]) -> list[Any]:
    """What `work` gives on each of n ranks that torchrun might have started; an exception that it
    raises is its outcome, None that of a rank that was killed. What is patched in this process is
    not in theirs: see `patched`."""
    # As torchrun does it, the store is not one of the ranks'.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore
    sent = cloudpickle.dumps(work)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(rank) for rank in range(n)]
        processes = [
            SERVER.Process(target=_run, args=(sent, rank, n, store.port, file))
            for rank, file in enumerate(files)
        ]
        with pytest.MonkeyPatch.context() as patch:
            # What a process of this kind runs first, which a page under test may have replaced.
            patch.setitem(sys.modules, "__main__", ModuleType("__main__"))
            for process in processes:
                process.start()
        for process in processes:
            process.join()
        stuck = [file.with_suffix(".stuck").read_text() for file in files]
        assert not any(stuck), "\n".join(stuck)
        return [pickle.loads(file.read_bytes()) if file.exists() else None for file in files]


def results(n: int, work: Callable[[], Any]) -> list[Any]:
    """`outcomes` of work that must succeed."""
    every = outcomes(n, work)
    for each in every:
        if isinstance(each, BaseException):
            raise AssertionError("".join(each.__notes__)) from each
    return every


def patched(work: Callable[[], Any], target: Any, name: str, value: Any) -> Callable[[], Any]:
    """The work, with an attribute replaced while it runs."""

    def replaced() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(target, name, value)
            return work()

    return replaced


def _run(sent: bytes, rank: int, n: int, port: int, file: Path) -> None:
    """One rank: its outcome goes to a file; where it does not end, where each thread stands."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(n)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    ranks.TIMEOUT = timedelta(seconds=60)
    with file.with_suffix(".stuck").open("w") as stuck:
        faulthandler.dump_traceback_later(LIMIT, exit=True, file=stuck)
        try:
            outcome = pickle.loads(sent)()
        except BaseException as error:
            error.add_note(traceback.format_exc())
            outcome = error
        file.write_bytes(cloudpickle.dumps(outcome))
        faulthandler.cancel_dump_traceback_later()
    os._exit(0)
