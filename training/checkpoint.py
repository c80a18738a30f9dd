"""Checkpoints: one safetensors file per saved step, written atomically, the newest two kept."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from saelab import digests
from saelab.errors import FailedRun
from saelab.files import write_atomic

KEPT = 2
REMEDY = "delete it to go on from the one before"


def save(folder: Path, step: int, tensors: dict[str, Tensor]) -> None:
    """Write step-NNNNNNNN.safetensors with its own digest, then drop all but the newest two."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def write(path: Path) -> None:
        save_file(whole, path, {digests.FIELD: digests.BLANK})
        digests.seal(path)

    write_atomic(folder / f"step-{step:08d}.safetensors", write)
    for old in steps(folder)[:-KEPT]:
        old.unlink()


def steps(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def newest(folder: Path) -> dict[str, Tensor] | None:
    """The tensors of the newest checkpoint, or None. Raises FailedRun if it cannot be read, or is
    not what was written."""
    saved = steps(folder)
    if not saved:
        return None
    try:
        whole = digests.tensors_right(saved[-1])
        tensors = load_file(saved[-1])
    except Exception as error:
        raise FailedRun(f"checkpoint {saved[-1]} cannot be read ({error}); {REMEDY}") from None
    if whole is False:
        raise FailedRun(f"checkpoint {saved[-1]} was altered: its SHA-256 is another; {REMEDY}")
    return tensors
