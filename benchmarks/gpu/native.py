"""The kernels' tests, compiled for this card instead of interpreted."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.card import Card, Rows

ROOT = Path(__file__).parents[2]
CHOSEN = "(triton or gpu) and not compile"  # what is compiled for cards that are absent is CI's


def native(card: Card) -> Rows:
    """How many tests of the Triton kernels passed, and the lines of those that did not."""
    if card.tiny:
        yield "skipped", "the test suite runs them interpreted"
        return
    if importlib.util.find_spec("pytest") is None:
        yield "skipped", "pytest is not installed here"
        return
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", CHOSEN]
    environment = {name: v for name, v in os.environ.items() if name != "TRITON_INTERPRET"}
    with subprocess.Popen(
        [*command, "tests/kernels"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=environment,
    ) as tests:
        assert tests.stdout is not None
        for line in tests.stdout:
            print(line, end="", flush=True)
            if line.startswith(("FAILED", "ERROR")) or " passed" in line or " failed" in line:
                yield line.split(" - ")[0].strip(), line.strip()[:300]
    yield "exit code", tests.returncode
