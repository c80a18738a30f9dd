"""Whether bfloat16 products are worth screening with on this machine: measured once, never inferred
from processor flags.
"""

import contextlib
import json
import platform
import time
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import torch

from saelab.files import write_json
from saelab.kernels.cpu.remembered import user_folder

ROUNDS = 10
_GAIN = 0.8  # bfloat16 must take at most this share of float32's time
_forced: ContextVar[torch.dtype | None] = ContextVar("screening", default=None)


@contextlib.contextmanager
def screening(dtype: torch.dtype) -> Iterator[None]:
    """Screen in float32 or bfloat16 inside the block, whatever the probe found; results are the
    same bits."""
    if dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(
            f"screening in {dtype} is not possible; there are torch.float32 and torch.bfloat16"
        )
    token = _forced.set(dtype)
    try:
        yield
    finally:
        _forced.reset(token)


def screen_dtype() -> torch.dtype:
    """What `choose` screens in: what `screening` says, else what the probe found."""
    forced = _forced.get()
    return forced if forced is not None else getattr(torch, probe()["screen"])


def _machine() -> dict:
    names = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names += sorted(
            {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
        )
    return {
        "processor": " ".join(filter(None, names)),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "measured": f"least of {ROUNDS}",
    }


def _milliseconds() -> dict[str, float]:
    """What a product takes in each dtype: the least of several in turn, as other work on the
    machine only ever adds to a time."""
    best = {}
    for _ in range(ROUNDS):
        for dtype in (torch.bfloat16, torch.float32):
            left, right = torch.ones(1024, 784, dtype=dtype), torch.ones(2048, 784, dtype=dtype)
            out = torch.empty(1024, 2048, dtype=dtype)
            start = time.perf_counter()
            torch.mm(left, right.T, out=out)
            took = 1000 * (time.perf_counter() - start)
            name = str(dtype).removeprefix("torch.")
            best[name] = min(took, best.get(name, took))
    return {name: round(took, 3) for name, took in best.items()}


def _accumulates() -> bool:
    """Whether 1 + (K-1) 2^-9 comes out as its own rounding; a sum kept in bfloat16 would stay at
    1."""
    for n_terms in (768, 2304, 8192):
        right = torch.full((64, n_terms), 2.0**-9, dtype=torch.bfloat16)
        right[:, 0] = 1
        exact = torch.tensor(1 + (n_terms - 1) * 2.0**-9).bfloat16()
        for n_rows in (1, 33, 256):
            left = torch.ones(n_rows, n_terms, dtype=torch.bfloat16)
            if not bool((left @ right.T == exact).all()):
                return False
    return True


def _measure() -> dict:
    sound = _accumulates()
    times = _milliseconds()
    fast = times["bfloat16"] <= _GAIN * times["float32"]
    why = (
        f"a [1024, 784] by [784, 2048] product takes {times['bfloat16']} ms in bfloat16, "
        f"{times['float32']} in float32; bfloat16 products {'' if sound else 'do not '}add up in "
        "float32"
    )
    return {
        "screen": "bfloat16" if fast and sound else "float32",
        "why": why,
        "milliseconds": times,
        "sound": sound,
    }


@cache
def probe() -> dict:
    """What this machine screens in, and why: screen ("bfloat16" or "float32"), why, milliseconds,
    sound, machine, remembered.

    Measured once per machine, torch version and number of threads (a tenth of a second), remembered
    in the user's cache folder where that is writable.
    """
    machine, folder = _machine(), user_folder()
    path = None if folder is None else folder / "screen.json"
    if path is not None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(path.read_text(encoding="utf-8"))
            if known["machine"] == machine and known["screen"] in ("bfloat16", "float32"):
                return {**known, "remembered": str(path)}
    verdict = {**_measure(), "machine": machine}
    if path is not None:
        with contextlib.suppress(OSError):
            write_json(path, verdict)
    return {**verdict, "remembered": None}
