"""SIGKILL of one rank of a job that torchrun started, at random steps: each time the job ends with
one line that names the rank, and the command repeated with --resume ends with the weights of a job
that nobody killed, bit for bit.

    python -m tests.faults.killed_ranks --ranks 4 --n 5 --out killed_ranks.json
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

import saelab
from saelab import digests
from tests.conftest import HOOK, ROOT, make_cache, make_corpus, make_model
from tests.faults.flips import machine

N_STEPS, BATCH, EVERY = 120, 256, 20
WITHIN = 60.0  # seconds after the kill
OURS = re.compile(r"saelab train: (?!\d+ of|\d+ steps|at work)")  # not how far it is
START = "import sys; from saelab.door import main; sys.exit(main())"


class Killed(NamedTuple):
    """One job whose rank was killed."""

    rank: int
    step: int
    """after which it was killed"""
    seconds: float
    """from the kill to the end of the job"""
    lines: list[str]
    """what saelab said on stderr, of all ranks"""
    same: bool
    """whether the resumed job ended with the weights of the whole one"""


def start(cache: Path, out: Path, n_ranks: int, *more: str) -> subprocess.Popen:
    """torchrun training on the cache, a row of metrics.jsonl for each step."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n_ranks)]
    own = ["--standalone", "--no-python", sys.executable, "-c", START, "train"]
    options = {"cache": cache, "out": out, "hook": HOOK, "features": 130, "k": 4, "batch": BATCH}
    options |= {"tokens": N_STEPS * BATCH, "checkpoint-every": EVERY, "log-every": 1}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    # What this machine screens in decides the last bits: nobody else may measure it anew meanwhile.
    own_cache = {"XDG_CACHE_HOME": str(cache.parent / "user")}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **own_cache}
    return subprocess.Popen(
        [*torchrun, *own, *words, *more],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=environment,
    )


def ended(job: subprocess.Popen) -> None:
    """Wait for a job that must succeed."""
    _, said = job.communicate()
    if job.returncode:
        raise RuntimeError(f"a job that nobody killed failed: {said[-2000:]}")


def rank_process(job: subprocess.Popen, rank: int) -> int:
    """The process of a rank: a child of torchrun with that RANK."""
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in variables:
            return int(child)
    raise RuntimeError(f"no process of rank {rank} among {children}")


def kill_after(job: subprocess.Popen, metrics: Path, rank: int, step: int) -> float:
    """SIGKILL a rank once that many steps are recorded; when that was."""
    while not metrics.is_file() or metrics.read_bytes().count(b"\n") < step:
        if job.poll() is not None:
            raise RuntimeError(f"the job ended before step {step}: {job.communicate()[1]}")
        time.sleep(0.01)
    os.kill(rank_process(job, rank), signal.SIGKILL)
    return time.monotonic()


def tried(cache: Path, whole: Path, out: Path, n_ranks: int, rng: random.Random) -> Killed:
    """Kill one rank of a job, then resume."""
    rank, step = rng.randrange(n_ranks), rng.randint(EVERY, N_STEPS - 10)
    job = start(cache, out, n_ranks)
    since = kill_after(job, out / "metrics.jsonl", rank, step)
    _, said = job.communicate(timeout=300)
    seconds = time.monotonic() - since
    lines = [line for line in said.splitlines() if OURS.match(line)]
    ended(start(cache, out, n_ranks, "--resume"))
    mine, theirs = (load_file(run / "sae" / "sae.safetensors") for run in (out, whole))
    same = all(torch.equal(mine[name], theirs[name]) for name in theirs)
    return Killed(rank, step, round(seconds, 1), lines, same)


def wrong(killed: Killed) -> bool:
    """Whether a job did not end as it should."""
    told = len(killed.lines) == 1 and f"rank {killed.rank} of" in killed.lines[0]
    return not (told and killed.same and killed.seconds <= WITHIN)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--n", type=int, default=5, help="jobs that are killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        (place / "corpus").mkdir()
        cache = make_cache(
            make_model(place / "model"), make_corpus(place / "corpus"), place / "cache"
        )
        ended(start(cache, place / "whole", args.ranks))
        tries = []
        for number in range(args.n):
            tries.append(tried(cache, place / "whole", place / f"{number}", args.ranks, rng))
            print(tries[-1], file=sys.stderr, flush=True)
    result = {
        "schema": "saelab/killed-ranks/1",
        "saelab_version": saelab.__version__,
        "machine": machine(),
        "seed": args.seed,
        "ranks": args.ranks,
        "steps": N_STEPS,
        "checkpoint_every": EVERY,
        "compared": "every tensor of sae/, bit for bit with a job that nobody killed",
        "killed": [each._asdict() for each in tries],
        "wrong": sum(map(wrong, tries)),
    }
    text = json.dumps(digests.sealed(result), indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
