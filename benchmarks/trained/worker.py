"""A package's process, in its own environment."""

import contextlib
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


class WorkerEnded(Exception):
    """A package's process ended before its job was done; the last line that it wrote."""


class Worker:
    """A package's process, in its own environment, that trains one job after another. Raises
    WorkerEnded where there is no such Python."""

    def __init__(self, package: str, python: str, folder: Path) -> None:
        self.package, self.log = package, folder / f"{package}.log"
        with self.log.open("w") as log:
            try:
                self.process = subprocess.Popen(
                    [python, "-m", "benchmarks.trained", package],
                    cwd=ROOT,
                    env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            except OSError as error:
                raise WorkerEnded(f"{python}: {error.strerror}") from None

    def train(self, place: Path) -> None:
        """Have the job of a folder trained."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{place}\n")
            self.process.stdin.flush()
        if not any(line == "done\n" for line in iter(self.process.stdout.readline, "")):
            raise WorkerEnded(self.log.read_text().strip().splitlines()[-1])

    def close(self) -> None:
        """End it."""
        # Leaving the block closes its pipes, one of which may hold a job that nobody reads.
        with contextlib.suppress(BrokenPipeError), self.process:
            self.process.kill()
