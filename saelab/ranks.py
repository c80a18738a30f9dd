"""The processes of a job that torchrun has started: who this one is, and what it does together with
the others.

Glue over torch.distributed alone. Started otherwise a process is rank 0 of 1, and everything here
does nothing. Importing this imports nothing heavy.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from saelab.errors import FailedRun, UsageError

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)  # for the slowest step of another rank, such as a first read
# Seconds in which every rank that lives notices that another one does not; less than the 30 after
# which torchrun kills them, and how long the last one is waited for.
PATIENCE, LAST = 20.0, 2.0
RESUME = "repeat the command with --resume to go on from the last checkpoint"


class Told(Exception):
    """Another rank ends the job, and says why: this one ends without a word."""


def rank() -> int:
    """This process's number among the ranks, 0 where it is alone."""
    return int(os.environ.get("RANK", 0)) if world() > 1 else 0


def world() -> int:
    """How many ranks there are; 1 outside of torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "MASTER_ADDR" in os.environ else 1


def device(name: str) -> str:
    """The device of this rank: of `cuda` the card with the rank's number on its machine.

    >>> device("cuda")
    'cuda:3'
    """
    return f"{name}:{os.environ.get('LOCAL_RANK', rank())}" if _many(name) else name


def _many(name: str) -> bool:
    return world() > 1 and name == "cuda"


@contextlib.contextmanager
def joined(remedy: str = RESUME) -> Iterator[None]:
    """Within the block the ranks may talk to each other: tensors on cards over NCCL, those on CPUs
    over gloo.

    Where a rank has ended without a word the lowest one left raises FailedRun, naming it and the
    remedy, and the others Told.

    >>> with joined():
    ...     first = at_first(lambda: newest_step(folder))
    """
    if world() == 1:
        yield
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    on_cards = torch.cuda.is_available()
    if on_cards:  # what names no card, such as a barrier, is then this rank's
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank())) % torch.cuda.device_count())
    store, me, n = next(rendezvous("env://", timeout=TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if on_cards else "gloo"
    dist.init_process_group(backend, store=store, rank=me, world_size=n, timeout=TIMEOUT)
    try:
        yield
    except BaseException as error:
        _leave(store, error, remedy)
        raise
    dist.destroy_process_group()


def _leave(store: Any, error: BaseException, remedy: str) -> None:
    """Say that this rank lives, before it ends by an error; where that is only that another one
    does not answer, raise what is to be said of that one."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, which would cut this short
    # Without the store, which is gone with the rank that held it, this one is the only one to tell.
    living = {rank()}
    # torchrun ends the ranks that are left with a signal, as it does where a person ends the job.
    suspect = _of_another(error) or (isinstance(error, KeyboardInterrupt) and not str(error))
    with contextlib.suppress(RuntimeError):
        store.set(f"end {rank()}", str(error))
        if isinstance(error, Told):  # torchrun ends all ranks with the first one that ends
            _within(PATIENCE, lambda: store.check(["end 0"]))
        if not suspect:
            if isinstance(error, UsageError | FailedRun) and _said_by_first(store, str(error)):
                raise Told from None
            return

        def here(n_ranks: int) -> bool:
            living.update(each for each in range(world()) if store.check([f"end {each}"]))
            return len(living) >= n_ranks

        _within(PATIENCE, lambda: here(world() - 1))
        _within(LAST, lambda: here(world()))
    lost = sorted(set(range(world())) - living)
    if not suspect or (not lost and isinstance(error, KeyboardInterrupt)):
        return
    if not lost or rank() != min(living):
        raise Told from None
    who = f"rank {lost[0]}" if len(lost) == 1 else f"ranks {', '.join(map(str, lost))}"
    raise FailedRun(f"{who} of {world()} ended without a word (killed?): {remedy}") from None


def _said_by_first(store: Any, text: str) -> bool:
    """Whether this is another rank than the first, which says the same."""
    said = rank() != 0 and _within(2 * LAST, lambda: store.check(["end 0"]))
    return said and store.get("end 0").decode() == text


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether something comes to hold in that time."""
    end = time.monotonic() + seconds
    while not (here := holds()) and time.monotonic() < end:
        time.sleep(0.05)
    return here


def _of_another(error: BaseException) -> bool:
    """Whether an error says that another rank is gone, or no longer answers."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (
        type(error) is RuntimeError and "gloo" in f"{error}"
    )


def barrier() -> None:
    """Wait until every rank is here."""
    if world() > 1:
        import torch.distributed as dist

        dist.barrier()


def at_first(work: Callable[[], T]) -> T:
    """What `work` gives on rank 0, which alone does it, on every rank. Where it fails, rank 0
    raises its error and the others Told."""
    if world() == 1:
        return work()
    import torch.distributed as dist

    outcome: list[Any] = [None, False]
    try:
        if rank() == 0:
            outcome = [work(), True]
    finally:
        dist.broadcast_object_list(outcome, src=0)
    if not outcome[1]:
        raise Told
    return outcome[0]


def any_of(mine: bool) -> bool:
    """Whether it is so on any rank."""
    if world() == 1:
        return mine
    import torch
    import torch.distributed as dist

    # On the CPU, so that no card is waited for.
    flag = torch.tensor(int(mine))
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)


def check_alike(what: str, values: Mapping[str, Any]) -> None:
    """Raise UsageError naming the first field in which the ranks differ, and on which rank."""
    if world() == 1:
        return
    import torch.distributed as dist

    every: list[Any] = [None] * world()
    dist.all_gather_object(every, dict(values))
    for number, theirs in enumerate(every):
        for name in {**every[0], **theirs}:
            mine, other = every[0].get(name), theirs.get(name)
            if mine != other:
                raise UsageError(
                    f"the ranks disagree on {what}: {name} is {mine!r} on rank 0 and {other!r} on "
                    f"rank {number}; start all with the same command"
                )


def told_to_first(payload: bytes) -> list[bytes]:
    """What each rank says, by rank, on rank 0; nothing on the others."""
    if world() == 1:
        return [payload]
    import torch
    import torch.distributed as dist

    mine = torch.tensor([len(payload)])
    every = [torch.zeros_like(mine) for _ in range(world())]
    dist.all_gather(every, mine)
    lengths = [int(length) for length in every]
    padded = bytearray(payload.ljust(max(1, *lengths), b"\0"))
    mine = torch.frombuffer(padded, dtype=torch.uint8)
    every = [torch.empty_like(mine) for _ in lengths] if rank() == 0 else []
    dist.gather(mine, every or None)
    return [one[:length].numpy().tobytes() for one, length in zip(every, lengths, strict=False)]
