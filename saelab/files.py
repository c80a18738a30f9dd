"""Writing files so that a reader never sees half of one."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from saelab import digests, locks
from saelab.errors import FailedRun, UsageError

# What a write that was killed leaves behind: ours, and those of safetensors before it was in ours.
_LEFT = re.compile(r"\.(?P<name>.+)\.\d+\.tmp|\.tmp\w{6}")


def near(path: Path) -> Path:
    """An absolute path as it is called from the current folder, where it lies below that.

    >>> near(Path.cwd() / "runs" / "demo")
    PosixPath('runs/demo')
    """
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a temporary file, or make a folder of files there, fsync it, then rename it
    to `path`; on any error nothing remains, and what a killed write of `path` left is removed.

    >>> write_atomic(Path("a.txt"), lambda temporary: temporary.write_text("whole"))
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, path.name)
    with _private(path) as folder:
        temporary = folder / path.name
        write(temporary)
        for file in temporary.iterdir() if temporary.is_dir() else [temporary]:
            file.chmod(0o666 & ~_umask())  # some writers make files that only their owner may read
            _fsync(file)
        _fsync(temporary)
        temporary.replace(path)
    _fsync(path.parent)


def append(path: Path, line: bytes) -> None:
    """Add a line to the end of a file, which is made if need be, and fsync it; on any error the
    file is as long as it was. A kill may leave the line half written.

    append(Path("a.jsonl"), b'{"a": 1}\\n')
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    length = os.fstat(descriptor).st_size
    try:
        left = memoryview(line)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    except BaseException:
        os.ftruncate(descriptor, length)
        raise
    finally:
        os.close(descriptor)
    if not length:
        _fsync(path.parent)


@contextlib.contextmanager
def _private(path: Path) -> Iterator[Path]:
    """A folder beside `path` for whatever a writer makes on the way, such as temporary files of its
    own; locked, so that nobody sweeps it while its writer lives."""
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = None
    while descriptor is None:
        folder.mkdir(exist_ok=True)
        # Another writer of `path` may sweep it away before it is locked.
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            descriptor = locks.take(folder / locks.NAME)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what killed writes of files in a folder left behind: of the file `name`, or of any."""
    for path in folder.iterdir():
        left = _LEFT.fullmatch(path.name)
        if left and name in (None, left["name"]):
            _remove_left(path)


def tidy(folder: Path) -> None:
    """Remove from a folder that is finished what its writer left if it was killed after that; not
    where somebody writes, or nobody may."""
    if any(is_trace(path.name) for path in folder.iterdir()):
        with contextlib.suppress(UsageError), locks.only_writer(folder):
            sweep(folder)


def is_trace(name: str) -> bool:
    """Whether a file of that name says only that somebody writes here, or was killed doing so."""
    return name == locks.NAME or _LEFT.fullmatch(name) is not None


def _remove_left(left: Path) -> None:
    """Remove one of them, unless its writer is alive."""
    if not left.is_dir():
        left.unlink(missing_ok=True)
        return
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        descriptor = locks.take(left / locks.NAME)
        shutil.rmtree(left, ignore_errors=True)
        os.close(descriptor)


@contextlib.contextmanager
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


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


@contextlib.contextmanager
def meant(path: Path, remedy: str) -> Iterator[None]:
    """Within the block the fields of a JSON file are given their meaning: what goes wrong there is
    told as damage to the file, with what to do.

        with meant(path, "train again"):
            width = header["shape"][0]
    """
    try:
        yield
    except FailedRun:
        raise
    # A file that anybody may have changed can be wrong in any way, torch's own complaints included.
    except (ArithmeticError, LookupError, AttributeError, TypeError, ValueError, RuntimeError) as e:
        kind = "" if isinstance(e, UsageError) else f"{type(e).__name__}: "
        why = " ".join(str(e).split())[:300]
        told = f"{path} is damaged, its fields do not hold what they should ({kind}{why}); {remedy}"
        raise FailedRun(told) from None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; a last one that is half written is left out. Raises
    FailedRun naming file and line of a damaged one."""
    *whole, _ = path.read_bytes().split(b"\n")
    return [read_row(line, f"line {number} of {path}") for number, line in enumerate(whole, 1)]


def read_row(line: bytes, where: str, remedy: str = "delete that line") -> dict[str, Any]:
    """The fields of a JSON line. Raises FailedRun naming where a damaged one stands, with what to
    do."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FailedRun(f"{where} is damaged, it is no JSON ({error}): {remedy}") from None
    if not isinstance(row, dict):
        raise FailedRun(f"{where} is damaged, it is no JSON object: {remedy}")
    return row


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
