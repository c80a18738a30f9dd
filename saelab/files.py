"""Writing files so that a reader never sees half of one."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saelab import digests
from saelab.errors import FailedRun


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary neighbour of `path`, fsync it, then rename it to `path`; on any
    error nothing remains."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())  # some writers make files that only their owner may read
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def undone(*folders: Path) -> Iterator[Callable[[], None]]:
    """Take back what a block that fails has made in `folders`, the folders and those above them
    too. The block is given a function: after it is called, everything is kept.

        with undone(out) as keep:
            first_step(out)
            keep()
            other_steps(out)
    """
    before = {folder: _contents(folder) for folder in folders}
    missing = {folder: _topmost_missing(folder) for folder in folders}
    kept: list[bool] = []
    try:
        yield lambda: kept.append(True)
    except BaseException:
        for folder in () if kept else folders:
            top = missing[folder]
            for path in _contents(folder) - before[folder] if top is None else {top}:
                _remove(path)
        raise


def _contents(folder: Path) -> set[Path]:
    return set(folder.iterdir()) if folder.is_dir() else set()


def _topmost_missing(folder: Path) -> Path | None:
    way = [*reversed(folder.parents), folder]
    return next((path for path in way if not path.exists()), None)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_json(path: Path) -> Any:
    """The value of a JSON file, which has its own digest if it holds one. Raises FailedRun naming
    a damaged file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FailedRun(f"{path} is damaged, it is no JSON ({error}): write it anew") from None
    if isinstance(value, dict) and digests.is_right(value) is False:
        raise FailedRun(
            f"{path} was altered: its content has not the SHA-256 that it holds; write it anew, or "
            f"delete its field {digests.FIELD!r} if you changed it on purpose"
        )
    return value


def read_object(path: Path) -> dict[str, Any]:
    """The fields of a JSON file that holds an object. Raises FailedRun naming any other file."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise FailedRun(f"{path} is damaged: it holds a {type(value).__name__}, no fields")
    return value


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; a document (what has a `schema`) with its own
    digest."""
    if isinstance(value, dict) and "schema" in value:
        value = digests.sealed(value)
    write_atomic(
        path,
        lambda temporary: temporary.write_text(
            json.dumps(value, indent=1) + "\n", encoding="utf-8"
        ),
    )
