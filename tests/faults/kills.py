"""SIGKILL anywhere in every verb that writes, and at every file event of some: repeated, each ends
with the bytes of a run that nobody killed, and leaves nothing else behind.

    python -m tests.faults.kills --n 200 --out benchmarks/results/kills.json

Everything is imported once; each try is a fork. A try is killed once to three times, at a random
moment of the processor time that the whole takes, then repeated to its end. Compared are the bytes
of every file, and which files and folders there are.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch

import saelab
from saelab import digests
from tests.faults.flips import machine
from tests.faults.verbs import VERBS, Verb, ended, prepare, start

TICK = os.sysconf("SC_CLK_TCK")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = ("os.rename", "os.remove", "sqlite3.connect")


def kill(child: int, after: float) -> bool:
    """SIGKILL a child once it has used so much processor time; whether it had not ended before."""
    late = random.random() / TICK  # anywhere between two ticks of the clock that is read
    while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        if (int(fields[11]) + int(fields[12])) / TICK >= after:
            time.sleep(late)
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.001)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def on_file_events(act: Callable[[], object], folder: Path) -> None:
    """Let `act` be called before every opening for writing, renaming, fsync and unlinking below a
    folder, in this process and for ever."""

    def inside(path: Any) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        path = Path(path)
        return not path.is_absolute() or path.is_relative_to(folder)

    def hook(event: str, args: tuple) -> None:
        writes = event == "open" and (args[2] or 0) & WRITES
        if (writes or event in EVENTS) and inside(args[0]):
            act()

    fsync = os.fsync

    def counted(descriptor: int) -> None:
        act()
        fsync(descriptor)

    os.fsync = counted
    sys.addaudithook(hook)


def kill_at(number: int) -> Callable[[Path], None]:
    """What kills its own process at the file event of that number, from 1."""

    def before(folder: Path) -> None:
        left = [number]

        def count() -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        on_file_events(count, folder)

    return before


def n_events(verb: Verb, folder: Path) -> int:
    """How many file events the verb has, run to its end in a fork."""
    counts = folder.with_suffix(".events")

    def before(_: Path) -> None:
        file = os.open(counts, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        on_file_events(lambda: os.write(file, b"."), folder)

    ended(verb, folder, before)
    return counts.stat().st_size


def contents(folder: Path) -> dict[str, bytes | None]:
    """The bytes of every file below a folder, hidden ones included, by name; None for folders."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


def differing(folder: Path, whole: Path) -> list[str]:
    """The names under which two folders do not hold the same."""
    one, other = contents(folder), contents(whole)
    names = sorted(one.keys() | other.keys())
    return [name for name in names if one.get(name, b"no file") != other.get(name, b"no file")]


class Whole(NamedTuple):
    """A verb that nobody interrupts."""

    folder: Path
    seconds: float
    """of processor time"""
    events: int
    """file events"""


def wholes(verbs: Sequence[Verb], place: Path) -> dict[str, Whole]:
    """Each verb once to its end."""
    result = {}
    for verb in verbs:
        folder = _new(place / f"whole-{verb.name.replace(' ', '-')}")
        count = n_events(verb, folder)
        shutil.rmtree(folder)
        result[verb.name] = Whole(folder, ended(verb, _new(folder)), count)
    return result


def at_random(
    verbs: Sequence[Verb], n: int, seed: int, place: Path, whole: dict[str, Whole]
) -> Iterator[tuple[str, int, list[str]]]:
    """Tries in turn until n kills have struck: the verb, how many did, and what then differed."""
    rng, left = random.Random(seed), n
    for verb in cycle(verbs):
        if left <= 0:
            return
        folder, struck = _new(place / "try"), 0
        for _ in range(min(left, rng.randint(1, 3))):
            struck += kill(start(verb, folder), rng.uniform(0, whole[verb.name].seconds))
        left -= struck
        yield verb.name, struck, _again(verb, folder, whole[verb.name])


def at_events(
    verbs: Sequence[Verb], jobs: int, place: Path, whole: dict[str, Whole]
) -> Iterator[tuple[str, int, list[str]]]:
    """One try for each file event, killed before it: likewise; so many jobs at once."""
    if not verbs:
        return
    asked = [(verb, number) for verb in verbs for number in range(1, whole[verb.name].events + 1)]
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        yield from pool.map(partial(_at_event, place=place, whole=whole), *zip(*asked, strict=True))


def _at_event(
    verb: Verb, number: int, place: Path, whole: dict[str, Whole]
) -> tuple[str, int, list[str]]:
    folder = _new(place / f"try-{os.getpid()}")
    status = os.waitpid(start(verb, folder, kill_at(number)), 0)[1]
    wrong = _again(verb, folder, whole[verb.name])
    return verb.name, int(os.WIFSIGNALED(status)), [f"event {number}: {each}" for each in wrong]


def _new(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _again(verb: Verb, folder: Path, whole: Whole) -> list[str]:
    try:
        ended(verb, folder)
    except RuntimeError as error:
        return [str(error)]
    return differing(folder, whole.folder)


def table(tries: Iterator[tuple[str, int, list[str]]]) -> tuple[dict[str, dict], list[str]]:
    """By verb how many tries, kills and tries that ended otherwise; and what differed in these."""
    rows: dict[str, Counter] = {}
    wrong = []
    for name, struck, differences in tries:
        row = rows.setdefault(name, Counter(tries=0, kills=0, different=0))
        row.update(tries=1, kills=struck, different=bool(differences))
        wrong += [f"{name}: {each}" for each in differences]
        print(f"{name}: {struck} {differences or ''}", file=sys.stderr, flush=True)
    return {name: dict(row) for name, row in rows.items()}, wrong


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200, help="random kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-events", action="store_true", help="random kills alone")
    parser.add_argument("--jobs", type=int, default=1, help="tries at file events at once")
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        prepare(place)
        whole = wholes(VERBS, place)
        random_rows, wrong = table(at_random(VERBS, args.n, args.seed, place, whole))
        verbs = [] if args.no_events else [verb for verb in VERBS if verb.events]
        event_rows, also_wrong = table(at_events(verbs, args.jobs, place, whole))
    result = {
        "schema": "saelab/kills/1",
        "saelab_version": saelab.__version__,
        "machine": machine(),
        "seed": args.seed,
        "compared": "the bytes of every file, metrics.jsonl included, and the names of all files "
        "and folders",
        "seconds": {name: round(each.seconds, 2) for name, each in whole.items()},
        "random": random_rows,
        "at_file_events": event_rows,
        "differences": wrong + also_wrong,
    }
    text = json.dumps(digests.sealed(result), indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
