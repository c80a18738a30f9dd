"""Checkpoints: one safetensors file per saved step, written atomically."""

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from saelab import digests
from saelab.errors import FailedRun
from saelab.files import write_atomic

KEPT = 2
REMEDY = "delete it to go on from the one before"


def save(folder: Path, step: int, tensors: dict[str, Tensor]) -> None:
    """Write step-NNNNNNNN.safetensors with its own digest."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}

    def write(path: Path) -> None:
        save_file(whole, path, {digests.FIELD: digests.BLANK})
        digests.seal(path)

    write_atomic(_file(folder, step), write)


def prune(folder: Path, every: int, n_steps: int) -> None:
    """Drop all but the newest two that are due, at each `every` steps and at the end; the newest of
    all stays whatever it is, such as that of an interruption."""
    held = steps(folder)
    due = [step for step in held if step % every == 0 or step == n_steps]
    for step in set(held[:-1]) - set(due[-KEPT:]):
        _file(folder, step).unlink()


def steps(folder: Path) -> list[int]:
    """The steps of which `folder` holds a checkpoint, in order."""
    return sorted(int(path.stem[5:]) for path in folder.glob("step-*.safetensors"))


def newest_of_all(folders: Sequence[Path]) -> int:
    """The newest step of which all folders hold a checkpoint, 0 where none of them had its second
    one yet. Raises FailedRun where they have none in common."""
    held = [steps(folder) for folder in folders]
    common = set.intersection(*map(set, held))
    if not common and any(len(mine) > 1 for mine in held):
        every = sorted(set().union(*held))
        raise FailedRun(
            f"the runs' checkpoints are of different steps: {every}; resume each by itself"
        )
    return max(common, default=0)


def drop_after(folder: Path, step: int) -> None:
    """Remove the checkpoints of later steps, which other runs of a pass had not reached."""
    for later in steps(folder):
        if later > step:
            _file(folder, later).unlink()


def load(folder: Path, step: int) -> dict[str, Tensor]:
    """The tensors of a step's checkpoint. Raises FailedRun if it cannot be read, or is not what was
    written."""
    file = _file(folder, step)
    try:
        whole = digests.tensors_right(file)
        tensors = load_file(file)
    except Exception as error:
        raise FailedRun(f"checkpoint {file} cannot be read ({error}); {REMEDY}") from None
    if whole is False:
        raise FailedRun(f"checkpoint {file} was altered: its SHA-256 is another; {REMEDY}")
    return tensors


def _file(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.safetensors"
