"""What reading a cache costs beside training on it: `python benchmarks/reading.py [--out FILE]`.

Shuffled batches alone, in line and read ahead by a thread, beside the trainer's steps at the same
width; training with either in turn; and the memory of a process that reads a cache and one of ten
times its size. Caches are of random numbers, float16, in a temporary folder.
"""

import argparse
import json
import platform
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from saelab.activations import Cache, shuffled
from training.config import Config
from training.run import Run

NARROW = 64  # width of the caches whose reader's memory is looked at


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Reading beside training.")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--features", type=int, default=24_576)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=300_000, help="of the cache")
    parser.add_argument("--steps", type=int, default=4, help="of a buffer, and of a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args()


def made(place: Path, n_tokens: int, width: int) -> Cache:
    """A cache of random numbers."""
    random = torch.Generator().manual_seed(0)
    block = torch.randn(min(n_tokens, 60_000), width, generator=random).half()
    rows = block.repeat(-(-n_tokens // len(block)), 1)[:n_tokens]
    return Cache.write(place, "arrays", arrays=rows, text=str(n_tokens))


def reading(cache: Cache, batch: int, ahead: bool, n: int = 150) -> float:
    """Tokens per second of batches that nobody uses, after a whole epoch, so that every shard's
    digest has been compared."""
    with cache.batches(["acts"], batch, ahead=ahead) as batches:
        for _ in range(batches.per_epoch + 1):
            next(batches)
        started = time.perf_counter()
        for _ in range(n):
            next(batches)
        return n * batch / (time.perf_counter() - started)


def trained(cache: Cache, args: argparse.Namespace) -> dict[str, Any]:
    """Training with batches that are read in line and ahead, which take turns of a buffer each."""
    shuffled.BUFFER = args.steps * args.batch
    options = {"features": args.features, "k": args.k, "batch": args.batch, "device": "cpu"}
    run = Run(Config(cache="x", out="x", **options), *[next(cache.batches("acts", 4096))] * 2)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with (
        cache.batches(["acts"], args.batch, ahead=False) as in_line,
        cache.batches(["acts"], args.batch, ahead=True) as ahead,
    ):
        for number in range(args.rounds + 1):
            for batches in (in_line, ahead):
                started = time.perf_counter()
                for _ in range(args.steps):
                    x_BD = next(batches)["acts"]
                    run.step(x_BD, x_BD)
                if number:
                    seconds[batches.ahead].append(time.perf_counter() - started)
    ratios = [with_it / without for without, with_it in zip(*seconds.values(), strict=True)]
    return {
        "tokens_per_second": round(shuffled.BUFFER / statistics.median(seconds[False])),
        "time_with_a_thread_beside_in_line": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }


def anonymous_bytes(cache: Cache, batch: int) -> int:
    """What reading an epoch, ahead, takes more than was taken before; mapped files apart."""
    before = _anonymous()
    with cache.batches(["acts"], batch, ahead=True) as batches:
        for _ in range(batches.per_epoch):
            next(batches)
        return _anonymous() - before


def _anonymous() -> int:
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def measure(args: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Everything."""
    sizes = (2 * args.tokens, 20 * args.tokens)
    held = [anonymous_bytes(made(place / f"n{n}", n, NARROW), args.batch) for n in sizes]
    cache = made(place / "cache", args.tokens, args.width)
    alone = {name: round(reading(cache, args.batch, name == "ahead")) for name in ("line", "ahead")}
    return {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "dtype": "float16",
        "shape": {name: getattr(args, name) for name in ("width", "features", "k", "batch")},
        "reading_tokens_per_second": alone,
        "training": trained(cache, args),
        "memory": {"width": NARROW, "tokens": sizes, "anonymous_bytes": held},
    }


def main() -> None:
    """Measure, print, and write where asked."""
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        result = json.dumps(measure(args, Path(folder)), indent=1)
    print(result)
    if args.out:
        args.out.write_text(result + "\n")


if __name__ == "__main__":
    main()
