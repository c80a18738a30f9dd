"""The file of annotations: a SQLite log of edits, which many may write at once and a crash does not
take from."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from saelab.errors import FailedRun

SCHEMA = "saelab/annotations/1"
WAIT = 30.0  # seconds for another writer to finish
TABLES = """
create table if not exists meta (key text primary key, value text) without rowid;
create table if not exists edit (
    id integer primary key, sae text not null, feature integer not null, field text not null,
    name text not null, value text not null, at text not null
);
create index if not exists edit_of on edit (sae, feature, field, name, id);
"""
EMPTY = "select 1 where not exists (select 1 from sqlite_master)"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[sqlite3.Connection]:
    """A transaction that is kept if the block ends well; the file is made where there is none, and
    what is committed outlives a crash. Raises FailedRun for a file that is damaged or cannot be
    written."""
    with _told(path, "written"), contextlib.closing(_connected(path)) as connection:
        _to_wal(connection)
        connection.execute("pragma synchronous = full")
        if connection.execute(EMPTY).fetchone():
            first = f"insert or ignore into meta values ('schema', '{SCHEMA}')"
            connection.executescript(f"begin immediate; {TABLES} {first}; commit;")
        _check_schema(connection, path)
        connection.execute("begin immediate")
        yield connection
        connection.execute("commit")


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=WAIT, isolation_level=None)


def read(path: Path, sql: str, *arguments: object) -> list[tuple]:
    """Rows of a query; none where there is no file yet. Raises FailedRun for one that is damaged or
    of another version."""
    if not path.is_file():
        return []
    with _told(path, "read"), _reading(path) as connection:
        if connection.execute(EMPTY).fetchone():
            return []
        _check_schema(connection, path)
        return connection.execute(sql, arguments).fetchall()


def check(path: Path) -> None:
    """Read the whole file. Raises FailedRun for one that is damaged or of another version."""
    for (said,) in read(path, "pragma quick_check(1)"):
        if said != "ok":
            raise FailedRun(f"{path} is damaged ({said}): restore a copy, or move it away")


@contextlib.contextmanager
def _told(path: Path, done: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise FailedRun(f"{path} cannot be {done} ({error})") from None
    except sqlite3.DatabaseError as error:
        told = f"{path} is damaged ({error}): restore a copy, or move it away"
        raise FailedRun(told) from None


def _to_wal(connection: sqlite3.Connection) -> None:
    """Set the journal to WAL. SQLite does not wait for others there, so this does."""
    until = time.monotonic() + WAIT
    while connection.execute("pragma journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("pragma journal_mode = wal")
        except sqlite3.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads, from a folder that may not be written as well."""
    uri = path.resolve().as_uri()
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        connection = sqlite3.connect(f"{uri}?{mode}", uri=True, timeout=WAIT)
        with contextlib.closing(connection):
            try:
                connection.execute("select 1 from sqlite_master").fetchone()
            except sqlite3.OperationalError:
                # Where nobody can have a log open beside it, the file alone is all there is.
                if "immutable" in mode or path.with_name(f"{path.name}-wal").exists():
                    raise
                continue
            yield connection
            return


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    row = connection.execute("select value from meta where key = 'schema'").fetchone()
    if row != (SCHEMA,):
        other = row[0] if row else None
        raise FailedRun(f"{path} has schema {other!r}, this version reads {SCHEMA!r}")
