"""Checkpoints: one safetensors file per saved step, or a folder of them where ranks share out the
features; written atomically."""

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from saelab import digests, ranks
from saelab.errors import FailedRun
from saelab.files import write_atomic

from . import shards
from .layout import ALONE, Layout
from .sharded import Sharded

KEPT = 2
SUFFIX = ".safetensors"
REMEDY = "delete it to go on from the one before"


def save(folder: Path, step: int, tensors: dict[str, Tensor], layout: Layout = ALONE) -> None:
    """Write step-NNNNNNNN.safetensors with its own digest; of a dictionary that ranks share out,
    all of them together, the folder step-NNNNNNNN."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    if isinstance(layout, Sharded):
        write_shards = partial(shards.write, tensors=whole, n_features=layout.n_features)
        if ranks.rank() == 0:
            write_atomic(folder / _name(step), write_shards)
        else:
            write_shards(None)
        ranks.barrier()  # nobody goes on before the checkpoint has its name
        return
    if ranks.rank() != 0:
        return

    def write(path: Path) -> None:
        save_file(whole, path, {digests.FIELD: digests.BLANK})
        digests.seal(path)

    write_atomic(folder / f"{_name(step)}{SUFFIX}", write)


def prune(folder: Path, every: int, n_steps: int) -> None:
    """Drop all but the newest two that are due, at each `every` steps and at the end; the newest of
    all stays whatever it is, such as that of an interruption."""
    held = steps(folder)
    due = [step for step in held if step % every == 0 or step == n_steps]
    for step in set(held[:-1]) - set(due[-KEPT:]):
        _remove(folder, step)


def steps(folder: Path) -> list[int]:
    """The steps of which `folder` holds a checkpoint, in order."""
    numbers = (path.name.removesuffix(SUFFIX)[5:] for path in folder.glob("step-*"))
    return sorted({int(number) for number in numbers if number.isdecimal()})


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
            _remove(folder, later)


def load(folder: Path, step: int, part: slice = ALONE.part) -> dict[str, Tensor]:
    """The tensors of a step's checkpoint, of some features if `part` says so. Raises FailedRun if
    it cannot be read, or is not what was written."""
    if (folder / _name(step)).is_dir():
        return shards.read(folder / _name(step), part, REMEDY)
    file = folder / f"{_name(step)}{SUFFIX}"
    try:
        whole = digests.tensors_right(file)
        tensors = load_file(file)
    except Exception as error:
        raise FailedRun(f"checkpoint {file} cannot be read ({error}); {REMEDY}") from None
    if whole is False:
        raise FailedRun(f"checkpoint {file} was altered: its SHA-256 is another; {REMEDY}")
    if part == ALONE.part:
        return tensors
    # Copied, so that the other features' rows need not stay.
    rows = {name: tensors[name][part].clone() for name in tensors if shards.of_features(name)}
    return {**tensors, **rows}


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _remove(folder: Path, step: int) -> None:
    if (folder / _name(step)).is_dir():
        # Renamed first: killed on the way, no half of it passes for a checkpoint, and it is swept.
        left = folder / f".{_name(step)}.{os.getpid()}.tmp"
        shutil.rmtree((folder / _name(step)).rename(left), ignore_errors=True)
    (folder / f"{_name(step)}{SUFFIX}").unlink(missing_ok=True)
