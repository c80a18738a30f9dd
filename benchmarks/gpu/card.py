"""What the stages share: shapes, inputs, a clock.

Shapes: B tokens, F features, D width.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from training.benchmark import Shape

Rows = Iterator[tuple[str, Any]]

BIG = Shape(width=2304, features=65536, k=64, batch=8192)
LAPTOP = Shape(width=768, features=24576, k=32, batch=2048)
TINY = Shape(width=8, features=24, k=2, batch=4)
MADE = 1 << 28  # numbers of a random matrix that are drawn at a time


class Card(NamedTuple):
    """Where a stage runs; tiny: on inputs that Triton's interpreter can do."""

    device: str
    tiny: bool = False

    @property
    def is_cuda(self) -> bool:
        """Whether there are events, streams and a memory of its own."""
        return self.device.startswith("cuda")

    def shapes(self) -> dict[str, Shape]:
        """The shapes that are timed, by name."""
        return {"tiny": TINY} if self.tiny else {"laptop": LAPTOP, "big": BIG}

    def generator(self, seed: int = 0) -> torch.Generator:
        """Random numbers on the device."""
        return torch.Generator(self.device).manual_seed(seed)

    def wait(self) -> None:
        """Until all that was launched is done."""
        if self.is_cuda:
            torch.cuda.synchronize()

    def milliseconds(self, work: Callable[[], Any], repeats: int = 9, warm: int = 3) -> float:
        """The median over repeats, fewer of them where a call is slow; by the card's own clock
        where there is one."""
        repeats, warm = (1, 0) if self.tiny else (repeats, warm)
        for _ in range(warm):
            work()
        self.wait()
        times, started = [], time.perf_counter()
        for _ in range(repeats):
            times.append(self._once(work))
            if time.perf_counter() - started > 5:
                break
        return round(statistics.median(times), 3)

    def _once(self, work: Callable[[], Any]) -> float:
        if not self.is_cuda:
            started = time.perf_counter()
            work()
            return 1e3 * (time.perf_counter() - started)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def peak(self, work: Callable[[], Any]) -> int | None:
        """Bytes that a call takes beyond those allocated before it; None without a card."""
        if not self.is_cuda:
            work()
            return None
        torch.cuda.empty_cache()
        self.wait()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        self.wait()
        return torch.cuda.max_memory_allocated() - before

    def rows(self, n: int, width: int, seed: int) -> Tensor:
        """Unit rows [n, width], made in place: a million of them fit once, not twice."""
        made = torch.empty(n, width, device=self.device)
        generator = self.generator(seed)
        for part in made.split(max(1, MADE // width)):
            part.normal_(generator=generator)
            part /= part.norm(dim=1, keepdim=True)
        return made

    def tokens(self, shape: Shape, W_FD: Tensor) -> Tensor:
        """x [B, D]: sums of a few rows, some of them far more frequent than others and two nearly
        everywhere, as in trained SAEs."""
        generator = self.generator(7)
        draws = torch.rand(shape.batch, 2 * shape.k, generator=generator, device=self.device)
        picks = (shape.features * draws**4).long().clamp_max(shape.features - 1)
        sizes = torch.rand(picks.shape, generator=generator, device=self.device)
        x = torch.randn(shape.batch, shape.width, generator=generator, device=self.device) * 0.15
        for column in range(picks.shape[1]):
            x += sizes[:, column, None] * W_FD[picks[:, column]]
        return x + 3 * W_FD[0] + 2 * W_FD[1]


def attempt(work: Callable[[], Any]) -> Any:
    """What a call gives; in its place why it failed, or what is not installed here."""
    try:
        return work()
    except Exception as error:
        return reason(error)


def guarded(name: str, rows: Rows) -> Rows:
    """The rows up to one that fails, whose reason is the last of them: others may still come."""
    try:
        yield from rows
    except Exception as error:
        yield name, reason(error)


def reason(error: Exception) -> dict[str, str]:
    """Why something failed, or what is not installed here, as a row."""
    if isinstance(error, ModuleNotFoundError):
        return {"skipped": f"{error.name} is not here"}
    lines = str(error).strip().splitlines() or [""]
    return {"failed": f"{type(error).__name__}: {lines[0][:200]}"}
