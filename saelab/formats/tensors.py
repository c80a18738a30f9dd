"""The tensors of others' files: safetensors and .pt mapped, .npz a member at a time; nothing that
could run code is read."""

import json
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from saelab.errors import FailedRun, UsageError
from saelab.files import write_atomic
from saelab.formats.matrices import Member

PICKLES = (".pt", ".pth")


def of_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file. Raises FailedRun for a damaged one."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise FailedRun(f"{path} cannot be read ({error}): fetch it again") from None


def may_have(path: Path, wanted: Iterable[str]) -> bool:
    """Whether a safetensors file has tensors of these names, or cannot be read: its form's reader
    then says so."""
    try:
        with safe_open(path, "pt") as file:
            return set(wanted) <= set(file.keys())
    except (SafetensorError, OSError):
        return path.is_file()


def of_pickle(path: Path) -> dict[str, Any]:
    """What `torch.save` wrote: tensors, numbers, words and dicts of them.

    Raises UsageError for anything else, which unpickling would run, FailedRun for a damaged file.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_archive(path))
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"{path} holds more than tensors, and reading that could run code: it is refused "
            f"({reason})"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FailedRun(f"{path} cannot be read ({reason}): fetch it again") from None
    if not isinstance(held, Mapping):
        raise UsageError(f"{path} holds a {type(held).__name__}, not weights by name")
    return dict(held)


def _is_archive(path: Path) -> bool:
    """Whether it is of torch's present form, which can be mapped."""
    return zipfile.is_zipfile(path)


def is_pickle(path: Path) -> bool:
    """Whether a file is one of `torch.save`, by its name and first bytes."""
    if path.suffix not in PICKLES or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02")


def of_npz(path: Path) -> dict[str, Member]:
    """The arrays of an archive, unread. Raises UsageError for Python objects, FailedRun for a
    damaged file."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name.removesuffix(".npy") for name in archive.namelist()]
        return {name: Member(path, name) for name in members}
    except UsageError:
        raise
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise FailedRun(f"{path} cannot be read ({error}): fetch it again") from None


def need(tensors: Mapping[str, Any], wanted: tuple[str, ...], path: Path) -> None:
    """Raise FailedRun where a file lacks tensors of its form."""
    if lacking := [name for name in wanted if name not in tensors]:
        raise FailedRun(
            f"{path} lacks {', '.join(lacking)}: it has {', '.join(sorted(map(str, tensors)))}"
        )


def number(value: float) -> Tensor:
    """One number, as the files keep one for all features."""
    return torch.tensor(float(value), dtype=torch.float64)


def write_safetensors(held: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name, atomically."""
    whole = {name: value.detach().cpu().contiguous() for name, value in held.items()}
    write_atomic(path, lambda temporary: save_file(whole, temporary))


def write_pickle(held: Mapping[str, Any], path: Path) -> None:
    """Write tensors, numbers and words by name as `torch.save` does, atomically."""
    whole = {
        name: value.detach().cpu().contiguous() if isinstance(value, Tensor) else value
        for name, value in held.items()
    }
    write_atomic(path, lambda temporary: torch.save(whole, temporary))


def write_fields(fields: Mapping[str, Any], path: Path) -> None:
    """Write the JSON that lies beside tensors, atomically."""
    text = json.dumps(fields, indent=1)
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
