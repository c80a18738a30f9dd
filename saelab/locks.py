"""One writer to a folder: a lock that ends with its process, however that ends. Readers never
wait."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from saelab.errors import UsageError

NAME = ".lock"


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Keep every other writer out of a folder within the block, and make it if need be; a folder
    that is empty at the end, and was made here, is removed again.

    Raises UsageError naming the process that writes there, or saying that nobody may.

    >>> with only_writer(Path("runs/a")):
    ...     write_json(Path("runs/a/report.json"), report)
    """
    try:
        made = _make(folder)
        descriptor = take(folder / NAME)
    except BlockingIOError:
        raise UsageError(
            f"{folder} is being written by process {_holder(folder / NAME)}: wait for its end, or "
            "name another folder"
        ) from None
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}".encode())
    try:
        yield
    finally:
        (folder / NAME).unlink(missing_ok=True)  # while it is held: nobody can have taken it
        os.close(descriptor)
        for empty in made:
            with contextlib.suppress(OSError):
                empty.rmdir()


def take(path: Path) -> int:
    """The descriptor of a file that this process has locked, made if need be; closing it gives it
    up. Raises BlockingIOError where another process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError:  # a file system without locks keeps nobody out
            return descriptor
        # Whoever held it may have removed it since it was opened: then this locks nothing.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def _make(folder: Path) -> list[Path]:
    """Make a folder; the folders that this took, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text() or "unknown"
    return "unknown"
