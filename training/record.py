"""Where a run's numbers go: metrics.jsonl, and Weights & Biases if asked."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from saelab.errors import FailedRun
from saelab.files import read_row
from saelab.runs import RunFolder

from .config import Config


class Record:
    """Appends rows to metrics.jsonl; on resume, rows after the checkpoint's step are cut off first.
    The file holds nothing that a clock says, so that it tells no interruption."""

    def __init__(self, run: Path, config: Config, first_step: int) -> None:
        path = RunFolder(run).metrics
        length = _length(path, first_step) if path.exists() else 0
        self.file = path.open("ab")
        self.file.truncate(length)
        self.wandb = _start_wandb(run, config) if config.wandb else None

    def row(self, **values: Any) -> None:
        """Write one row; `step` is among its values."""
        self.file.write(json.dumps(values).encode() + b"\n")
        self.file.flush()
        if self.wandb is not None:
            self.wandb.log({k: v for k, v in values.items() if k != "step"}, step=values["step"])

    def sync(self) -> None:
        """See the rows to the disk, before a checkpoint that they belong to."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        """Finish the files."""
        self.file.close()
        if self.wandb is not None:
            self.wandb.finish()


def _length(path: Path, last_step: int) -> int:
    """The bytes of the rows up to a step; a row that was cut, and what follows it, is none."""
    length = 0
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        if not line.endswith(b"\n") or _step(line, f"line {number} of {path}") > last_step:
            break
        length += len(line)
    return length


def _step(line: bytes, where: str) -> int:
    step = read_row(line, where).get("step")
    if not isinstance(step, int):
        raise FailedRun(f"{where} is damaged, its step is {step!r}: delete that line")
    return step


def _start_wandb(run: Path, config: Config) -> Any:
    import wandb

    mode: Any = os.environ.get("WANDB_MODE", "offline")
    return wandb.init(
        project="saelab",
        name=run.name,
        dir=str(run),
        config=asdict(config),
        mode=mode,
        reinit="create_new",
    )  # type: ignore[arg-type]
