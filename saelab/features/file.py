"""The index's file: opened and checked, sealed when it has been written."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from saelab import digests
from saelab.errors import FailedRun, UsageError
from saelab.features.schema import SCHEMA

MEMORY = 268_435_456  # bytes of the file that may be mapped
CHECKED = 67_108_864  # bytes of a file whose every page is checked when it is opened
MAGIC = b"SQLite format 3\0"
AGAIN = "run `saelab index RUN` again"


def open(path: Path) -> tuple[sqlite3.Connection, dict[str, Any]]:
    """A connection that cannot write, and the facts in `meta`, their schema and digest left out.

    Raises UsageError if there is no such file, it is no index, or it was written by another
    version, FailedRun if SQLite finds it damaged.
    """
    if not path.is_file():
        raise UsageError(f"{path} does not exist: `saelab index RUN` makes a run's feature index")
    with contextlib.ExitStack() as on_error:
        connection = _connected(path)
        on_error.callback(connection.close)
        meta = _meta(connection, path)
        if (schema := meta.pop("schema", None)) != SCHEMA:
            other = f"{path} has schema {schema!r}, this version reads {SCHEMA!r}"
            raise UsageError(f"{other}: {AGAIN}")
        _quick_check(connection, path)
        meta.pop(digests.FIELD, None)
        facts = _facts(meta, path)
        on_error.pop_all()
    return connection, facts


def schema(path: Path) -> str:
    """The schema of an index of any version. Raises UsageError for what is no index, FailedRun if
    SQLite finds it damaged."""
    with contextlib.closing(_connected(path)) as connection:
        meta = _meta(connection, path)
        _quick_check(connection, path)
    return meta.get("schema", "")


def sae(path: Path) -> str | None:
    """The SHA-256 of the weights that an index was made with; None if it does not say. Raises
    UsageError for what is no index, FailedRun for a damaged one."""
    with contextlib.closing(_connected(path)) as connection:
        meta = _meta(connection, path)
    return _facts({"sae": meta.get("sae", "null")}, path)["sae"]


def is_right(path: Path) -> bool | None:
    """Whether an index is the one that was written, by its digest; None if it has none. Reads the
    whole file; raises as `schema` does."""
    with contextlib.closing(_connected(path)) as connection:
        stored = _meta(connection, path).get(digests.FIELD)
    return None if stored is None else digests.is_sealed(path, stored)


def _check_length(path: Path) -> None:
    """Raise FailedRun for a database that was cut: its head says how many pages of which size it
    has (SQLite's file format, bytes 16 and 28)."""
    with path.open("rb") as file:
        head = file.read(32)
    if not head.startswith(MAGIC) or len(head) < 32:
        return
    size = int.from_bytes(head[16:18], "big")
    whole = int.from_bytes(head[28:32], "big") * (65_536 if size == 1 else size)
    length = path.stat().st_size
    if length < whole:
        cut = f"it was cut: {length:,} bytes instead of {whole:,}"
        raise FailedRun(f"{path} is damaged ({cut}): {AGAIN}")


def _connected(path: Path) -> sqlite3.Connection:
    _check_length(path)
    uri = f"{path.resolve().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, check_same_thread=False)


def _meta(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    try:
        connection.execute(f"pragma mmap_size = {MEMORY}")
        return dict(connection.execute("select key, value from meta"))
    except sqlite3.DatabaseError as error:
        broken = f"{path} is not a feature index ({error})"
        raise UsageError(f"{broken}: `saelab index RUN` makes one") from None


def _facts(meta: dict[str, str], path: Path) -> dict[str, Any]:
    try:
        return {name: json.loads(value) for name, value in meta.items()}
    except ValueError as error:
        raise FailedRun(f"{path} is damaged (its facts are no JSON: {error}): {AGAIN}") from None


@contextlib.contextmanager
def damage(path: Path) -> Iterator[None]:
    """What is found damaged inside the block, as FailedRun."""
    try:
        yield
    except UsageError:  # which is a ValueError too
        raise
    # Of a row whose head is spoiled SQLite says nothing: its blobs are null, or of other lengths.
    except (sqlite3.DatabaseError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        raise FailedRun(f"{path} is damaged ({said}): {AGAIN}") from None


def _quick_check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise FailedRun for a file whose pages are broken. A large one would take longer to check
    than to read what is asked for, which `damage` watches."""
    if path.stat().st_size > CHECKED:
        return
    try:
        (said,) = connection.execute("pragma quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        said = str(error)
    if said != "ok":
        raise FailedRun(f"{path} is damaged ({' '.join(said.split())}): {AGAIN}")
