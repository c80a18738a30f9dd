"""Checkpoints: one safetensors file per saved step, written atomically, the newest two kept."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from saelab.errors import FailedRun
from saelab.files import write_atomic

KEPT = 2


def save(folder: Path, step: int, tensors: dict[str, Tensor]) -> None:
    """Write step-NNNNNNNN.safetensors, then drop all but the newest two."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomic(folder / f"step-{step:08d}.safetensors", lambda path: save_file(whole, path))
    for old in steps(folder)[:-KEPT]:
        old.unlink()


def steps(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def newest(folder: Path) -> dict[str, Tensor] | None:
    """The tensors of the newest checkpoint, or None. Raises FailedRun if it cannot be read."""
    saved = steps(folder)
    if not saved:
        return None
    try:
        return load_file(saved[-1])
    except Exception as error:
        raise FailedRun(
            f"checkpoint {saved[-1]} cannot be read ({error}); delete it to go on from the one "
            "before"
        ) from None
