"""Changes of written files."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def edited(folder: Path, **changes: object) -> None:
    """Other fields in a cfg.json; None takes one away."""
    said = json.loads((folder / "cfg.json").read_text())
    said = {name: value for name, value in {**said, **changes}.items() if value is not None}
    (folder / "cfg.json").write_text(json.dumps(said))


def rewritten(file: Path, **tensors: torch.Tensor) -> None:
    save_file({**load_file(file), **tensors}, file)
