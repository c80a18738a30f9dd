"""What a shard of a cache costs where there are few and many of them, how memory grows with a
cache, and how long going on with it takes.

    python benchmarks/cache_scale.py --out benchmarks/results/cache_scale_epyc_zen4_2cores.json

Activations are random numbers, so that what is measured is the cache's own work: no model runs, no
text is read. Each measurement is a fork of one process that has everything loaded.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

import saelab
from saelab import digests, files
from saelab.activations import Cache, lines
from saelab.activations.estimate import memory
from saelab.activations.plan import Plan, hook
from saelab.activations.source import Piece, all_but_first
from saelab.activations.writer import write
from tests.faults.flips import machine

HOOK, T = "blocks.0.hook_out", 128


class Noise:
    """Contexts of random activations as a Source: every fifth group of 16 is held out."""

    def __init__(self, n_shards: int, width: int, shard_mb: float) -> None:
        plan = Plan(
            model={"name": "noise"},
            text="noise",
            hooks={HOOK: hook([width])},
            n_tokens=1,
            context=T,
        ).in_shards_of(int(shard_mb * 1e6))
        self.n_contexts = n_shards * plan.shard_contexts
        self.plan = Plan(**{**vars(plan), "n_tokens": self.n_contexts * T})
        self.names, self.notes = ["a", "b"], {}
        self.noise_CTD = torch.randn(64, T, width, generator=torch.Generator().manual_seed(0))

    def pieces(self) -> Iterator[Piece]:
        tokens_CT = torch.arange(T).expand(16, T)
        for number in range(0, self.n_contexts, 16):
            held = number // 16 % 5 == 4
            numbers_C = torch.arange(number, number + 16)
            yield Piece(
                ("train", "held_out")[held],
                tokens_CT,
                torch.full_like(tokens_CT, int(held)),
                numbers_C,
                all_but_first(tokens_CT),
            )

    def acts(self, piece: Piece) -> Iterator[dict[str, torch.Tensor]]:
        for numbers_C in piece.numbers.split(16):
            yield {HOOK: self.noise_CTD[numbers_C % 64]}


def measured(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What work gives in a fork, with its processor time, wall time and growth of memory."""
    read, to = os.pipe()
    child = os.fork()
    if not child:
        before = resource.getrusage(resource.RUSAGE_SELF)
        resident = _resident()
        started = time.perf_counter()
        result = work()
        used = resource.getrusage(resource.RUSAGE_SELF)
        result |= {
            "wall_s": round(time.perf_counter() - started, 3),
            "cpu_s": round(used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime, 3),
            "memory_mb": round((_peak() - resident) / 1e6, 1),
        }
        os.write(to, json.dumps(result).encode())
        os._exit(0)
    os.close(to)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return json.loads(said)


def _status(name: str) -> int:
    row = next(r for r in Path("/proc/self/status").read_text().splitlines() if r.startswith(name))
    return int(row.split()[1]) * 1024


def _resident() -> int:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    return _status("RssAnon")


def _peak() -> int:
    """Peak of what a process holds; pages of mapped files, which the system may drop, apart."""
    return _status("VmHWM") - _status("RssFile")


def capture(out: Path, n_shards: int, width: int, shard_mb: float) -> dict[str, Any]:
    """Write a cache: bytes written and hashed beside the shards themselves, by shard."""
    source = Noise(n_shards, width, shard_mb)
    counts = {"written": 0, "hashed": 0}
    fsync, append, sha256 = files._fsync, files.append, digests.sha256

    def counting_fsync(path: Path) -> None:
        counts["written"] += path.stat().st_size if path.is_file() else 0
        fsync(path)

    def counting_append(path: Path, line: bytes) -> None:
        counts["written"] += len(line)
        append(path, line)

    def counting_sha256(*paths: Path) -> str:
        counts["hashed"] += sum(path.stat().st_size for path in paths)
        return sha256(*paths)

    files._fsync, lines.append, digests.sha256 = counting_fsync, counting_append, counting_sha256
    write(source, out)
    n = len(lines.read(out).shards)
    of_shards = sum(shard["bytes"] for shard in lines.read(out).shards)
    return {
        "shards": n,
        "bytes": of_shards,
        "written_beside_per_shard": round((counts["written"] - of_shards) / n),
        "hashed_beside_per_shard": round((counts["hashed"] - of_shards) / n),
        "stated_memory_mb": round(memory(source.plan) / 1e6, 1),
    }


def reading(out: Path) -> dict[str, Any]:
    """Open a cache and read batches of it: 200 of 2,048 tokens."""
    cache = Cache(out)
    stream = cache.batches(HOOK, 2048)
    for _ in range(200):
        next(stream)
    return {"shards": len(cache.manifest["shards"])}


def verifying(out: Path) -> dict[str, Any]:
    """Read every digest."""
    Cache(out).verify()
    return {}


def resumed(out: Path, n_shards: int, width: int, shard_mb: float) -> dict[str, Any]:
    """Go on with a cache whose writing stopped at its last shard."""
    n_held = len(lines.read(out).shards)
    write(Noise(n_shards, width, shard_mb), out)
    return {"shards": len(lines.read(out).shards), "held": n_held}


def stopped(out: Path, n_shards: int, width: int, shard_mb: float) -> dict[str, Any]:
    """Write a cache up to its last shard."""
    source = Noise(n_shards, width, shard_mb)
    acts = source.acts

    def until_the_last(piece: Piece) -> Iterator[dict[str, torch.Tensor]]:
        if int(piece.numbers[-1]) == source.n_contexts - 1:
            raise KeyboardInterrupt
        return acts(piece)

    source.acts = until_the_last  # type: ignore[method-assign]
    with contextlib.suppress(KeyboardInterrupt):
        write(source, out)
    return {}


def rows(place: Path, n_shards: int, width: int, shard_mb: float) -> dict[str, Any]:
    """What a cache of so many shards costs in every way."""
    out, shape = place / "whole", (n_shards, width, shard_mb)
    result = {"capture": measured(partial(capture, out, *shape))}
    result |= {"read": measured(partial(reading, out)), "verify": measured(partial(verifying, out))}
    shutil.rmtree(out)
    measured(partial(stopped, place / "stopped", *shape))
    result["resume"] = measured(partial(resumed, place / "stopped", *shape))
    shutil.rmtree(place / "stopped")
    for row in result.values():
        row["cpu_ms_per_shard"] = round(1000 * row["cpu_s"] / result["capture"]["shards"], 2)
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--cost", type=int, nargs="+", default=[20, 2000], help="small shards")
    parser.add_argument("--memory", type=int, nargs="+", default=[20, 200], help="larger shards")
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [("cost", 1.1, args.cost), ("memory", 16.0, args.memory)]
    result: dict[str, Any] = {
        "schema": "saelab/cache-scale/1",
        "saelab_version": saelab.__version__,
        "machine": machine(),
        "width": args.width,
        "dtype": "float16",
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, shard_mb, every in sizes:
            of_sizes = {str(n): rows(Path(folder), n, args.width, shard_mb) for n in every}
            result[name] = {"shard_mb": shard_mb, "shards": of_sizes}
    text = json.dumps(digests.sealed(result), indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
