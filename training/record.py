"""Where a run's numbers go: metrics.jsonl, and Weights & Biases if asked."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from saelab.runs import RunFolder

from .config import Config


class Record:
    """Appends rows to metrics.jsonl; on resume, rows after the checkpoint's step are dropped
    first."""

    def __init__(self, run: Path, config: Config, first_step: int) -> None:
        path = RunFolder(run).metrics
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [
            line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= first_step
        ]
        self.file = path.open("w", encoding="utf-8")
        self.file.writelines(kept)
        self.wandb = _start_wandb(run, config) if config.wandb else None

    def row(self, **values: Any) -> None:
        """Write one row; `step` is among its values."""
        self.file.write(json.dumps(values) + "\n")
        self.file.flush()
        if self.wandb is not None:
            self.wandb.log({k: v for k, v in values.items() if k != "step"}, step=values["step"])

    def close(self) -> None:
        """Finish the files."""
        self.file.close()
        if self.wandb is not None:
            self.wandb.finish()


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
