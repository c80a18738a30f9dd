"""The kernels' tests, compiled for this card instead of interpreted."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from benchmarks.gpu.card import Card, Rows

ROOT = Path(__file__).parents[2]
CHOSEN = "(triton or gpu) and not compile"  # what is compiled for cards that are absent is CI's
WORKERS = 8  # that compile side by side; each holds half a GiB of the card
VERDICT = re.compile(r"\b(PASSED|FAILED|ERROR|SKIPPED) +(tests/\S+)|(tests/\S+.*) (PASSED|FAILED)")


def native(card: Card) -> Rows:
    """How many tests of the Triton kernels passed so far, and those that did not."""
    if card.tiny:
        yield "skipped", "the test suite runs them interpreted"
        return
    if find_spec("pytest") is None:
        yield "skipped", "pytest is not installed here"
        return
    command = [sys.executable, "-m", "pytest", "-v", "--tb=line", "-k", CHOSEN, "tests/kernels"]
    command += ["-p", "no:cacheprovider", "-p", "no:benchmark"]
    command += ["-n", str(WORKERS)] if find_spec("xdist") else []
    environment = {name: v for name, v in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["COLUMNS"] = "300"  # room for a reason behind a test's name
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment,
    ) as tests:
        assert tests.stdout is not None
        yield from verdicts(tests.stdout)
    yield "exit code is 0", tests.returncode == 0


def verdicts(lines: Iterable[str]) -> Rows:
    """Rows of pytest's lines: every 50 tests how many passed, each that failed at once and, in the
    summary, why."""
    counts: Counter[str] = Counter()
    for line in lines:
        if not (found := VERDICT.search(line)):
            continue
        verdict, name = found[1] or found[4], found[2] or found[3]
        if line.startswith(("FAILED", "ERROR")):  # the summary says why
            print(line, end="", flush=True)
            yield f"failed: {name}", {"failed": line.strip()[:300]}
            continue
        counts[verdict] += 1
        if verdict in ("FAILED", "ERROR"):
            yield f"failed: {name}", {"failed": "see the summary"}
        elif counts.total() % 50 == 0:
            yield "tests", dict(counts)
    yield "tests", dict(counts)
