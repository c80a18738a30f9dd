"""SIGKILL anywhere in every verb that writes, and at every file event of some: repeated, each ends
with the bytes of a run that nobody killed, and leaves nothing else behind.

    python -m tests.faults.kills --n 200 --no-events --jobs 4 --out kills_random.json
    python -m tests.faults.kills --n 0 --jobs 4 --out kills_events.json

Everything is imported once; each try is a fork. A try is killed once to three times, at a random
moment of the processor time that the whole takes, then repeated to its end. Compared are the bytes
of every file, and which files and folders there are.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch

import saelab
from saelab import digests
from tests.faults.events import kill_at, n_events
from tests.faults.flips import machine
from tests.faults.verbs import VERBS, Verb, ended, prepare, start

TICK = os.sysconf("SC_CLK_TCK")


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


def contents(folder: Path) -> dict[str, bytes | None]:
    """The bytes of every file below a folder, hidden ones included, by name; None for folders. Of
    graphs the seconds that they took are left out."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else _bytes(path)
        for path in folder.rglob("*")
    }


def _bytes(path: Path) -> bytes:
    whole = path.read_bytes()
    if not path.name.endswith(("graph.json", "graphs.json")):
        return whole
    return re.sub(rb'"(seconds": [0-9.e-]+|sha256": "[0-9a-f]+")', b"", whole)


def differing(folder: Path, whole: Path) -> list[str]:
    """The names under which two folders do not hold the same."""
    one, other = contents(folder), contents(whole)
    names = sorted(one.keys() | other.keys())
    return [name for name in names if one.get(name, b"no file") != other.get(name, b"no file")]


class Try(NamedTuple):
    """One try of a verb."""

    name: str
    """the verb's"""
    kills: int
    """how many struck"""
    different: list[str]
    """what was not as if nothing had happened"""


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


def at_random(verbs: Sequence[Verb], n: int, seed: int) -> list[tuple[Verb, list[float]]]:
    """Tries of the verbs in turn, n kills in all: at which share of the whole's time each is."""
    rng, tries, left = random.Random(seed), [], n
    for verb in cycle(verbs):
        shares = [rng.random() for _ in range(min(left, rng.randint(1, 3)))]
        if not shares:
            return tries
        tries.append((verb, shares))
        left -= len(shares)
    return tries


def at_events(verbs: Sequence[Verb], whole: dict[str, Whole]) -> list[tuple[Verb, int]]:
    """A try for each file event of the verbs, killed before it."""
    return [(verb, number) for verb in verbs for number in range(1, whole[verb.name].events + 1)]


def tried(
    tries: Sequence[tuple[Verb, Any]], place: Path, whole: dict[str, Whole], jobs: int = 1
) -> Iterator[Try]:
    """What became of each, so many at once."""
    one = partial(_tried, place=place, whole=whole)
    if jobs == 1 or not tries:
        yield from (one(*each) for each in tries)
        return
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        yield from pool.map(one, *zip(*tries, strict=True))


def _tried(verb: Verb, when: list[float] | int, place: Path, whole: dict[str, Whole]) -> Try:
    folder, mine = _new(place / f"try-{os.getpid()}"), whole[verb.name]
    if isinstance(when, int):
        os.waitpid(start(verb, folder, kill_at(when)), 0)
        return Try(verb.name, 1, [f"event {when}: {each}" for each in _again(verb, folder, mine)])
    for share in when:
        while not kill(start(verb, folder), share * mine.seconds):
            share /= 2  # it had ended
    return Try(verb.name, len(when), _again(verb, folder, mine))


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


def table(tries: Iterator[Try]) -> tuple[dict[str, dict], list[str]]:
    """By verb how many tries, kills and tries that ended otherwise; and what differed in these."""
    rows: dict[str, Counter] = {}
    wrong = []
    for each in tries:
        row = rows.setdefault(each.name, Counter(tries=0, kills=0, different=0))
        row.update(tries=1, kills=each.kills, different=bool(each.different))
        wrong += [f"{each.name}: {name}" for name in each.different]
        print(*each, file=sys.stderr, flush=True)
    return {name: dict(row) for name, row in rows.items()}, wrong


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200, help="random kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-events", action="store_true", help="random kills alone")
    parser.add_argument("--jobs", type=int, default=1, help="tries at once")
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        prepare(place)
        whole = wholes(VERBS, place)
        verbs = [] if args.no_events else [verb for verb in VERBS if verb.events]
        random_tries, event_tries = at_random(VERBS, args.n, args.seed), at_events(verbs, whole)
        random_rows, wrong = table(tried(random_tries, place, whole, args.jobs))
        event_rows, also_wrong = table(tried(event_tries, place, whole, args.jobs))
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
