"""A run's explanations.db: explanations by feature and method, of one SAE. Reads without torch; a
file of its own, so that a feature index that is made anew leaves it as it is."""

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from saelab import digests
from saelab.errors import FailedRun, UsageError
from saelab.explaining.records import RULES, Explanation
from saelab.files import write_atomic
from saelab.statistics import Estimate

SCHEMA = "saelab/explanations/1"
AGAIN = "run `saelab explain RUN` again"
TABLES = """
create table meta (key text primary key, value text) without rowid;
create table explanation (
    feature integer, method text, text text, score real, record text,
    primary key (feature, method)
) without rowid;
"""
ESTIMATES = ("score", "token", "gain")


class Run(Protocol):
    """What is asked of a run: `saelab.runs.RunFolder` has it."""

    explanations: Path

    def sae_digest(self) -> str | None:
        """SHA-256 of its SAE's weights."""
        ...


def explanations(run: Run, method: str = RULES) -> dict[int, Explanation]:
    """The explanations of a run's SAE by feature; empty where there are none, or they are of an
    earlier SAE. Raises UsageError for another version's file, FailedRun for a damaged one.

        explanations(RunFolder("runs/demo"))[7].text
    """
    sql = "select feature, record from explanation where method = ? order by feature"
    return {feature: _read(run, record) for feature, record in _ask(run, sql, method)}


def of_feature(run: Run, feature: int) -> list[Explanation]:
    """A feature's explanations, one per method, that of the rules first."""
    sql = "select record from explanation where feature = ? order by method <> ?, method"
    return [_read(run, record) for (record,) in _ask(run, sql, feature, RULES)]


def search(run: Run, text: str) -> dict[int, Explanation]:
    """Features with an explanation that contains a text, whatever its case, each with the best
    scored of these."""
    sql = (
        "select feature, record from explanation where instr(lower(text), lower(?)) order by score"
    )
    return {feature: _read(run, record) for feature, record in _ask(run, sql, text)}


def facts(run: Run) -> dict[str, Any]:
    """What `saelab explain` said, by method; empty where it has said nothing of this SAE."""
    return _facts(run.explanations, run.sae_digest())


def sae(path: Path) -> str | None:
    """The SHA-256 of the weights of the SAE that a file explains."""
    with contextlib.closing(_connected(path)) as connection:
        return _meta(connection, path).get("sae")


def is_right(path: Path) -> bool | None:
    """Whether a file is the one that was written, by its digest; None if it has none."""
    with contextlib.closing(_connected(path)) as connection:
        stored = _meta(connection, path).get(digests.FIELD)
    return None if stored is None else digests.is_sealed(path, stored)


def write(
    path: Path, sae: str | None, method: str, rows: Mapping[int, Explanation], said: Any
) -> None:
    """Put a method's explanations of an SAE into a file, atomically, in place of its earlier ones
    of these features; those of other methods and features stay, those of another SAE go."""
    kept: list[tuple] = []
    methods: dict[str, Any] = {}
    if path.is_file() and _of(path) == sae:
        methods = _facts(path, sae)
        with contextlib.closing(_connected(path)) as connection:
            every = connection.execute("select * from explanation").fetchall()
        kept = [row for row in every if row[1] != method or row[0] not in rows]
    new = [
        (feature, method, _text(row), row.score.value, json.dumps(_record(row)))
        for feature, row in rows.items()
    ]
    about = [("schema", SCHEMA), ("sae", sae), (digests.FIELD, digests.BLANK)]
    about.append(("methods", json.dumps({**methods, method: said})))

    def fill(temporary: Path) -> None:
        with contextlib.closing(sqlite3.connect(temporary)) as connection:
            connection.executescript("pragma journal_mode = off;" + TABLES)
            connection.executemany("insert into meta values (?, ?)", about)
            insert = "insert into explanation values (?, ?, ?, ?, ?)"
            connection.executemany(insert, [*kept, *new])
            connection.commit()
        digests.seal(temporary)

    write_atomic(path, fill)


def _of(path: Path) -> str | None:
    """The SAE of a file; of one that cannot be read, none that is."""
    try:
        return sae(path)
    except (UsageError, FailedRun):
        return "unreadable"


def _text(row: Explanation) -> str:
    """What is searched."""
    return row.text if row.opposite is None else f"{row.text}\n{row.opposite.text}"


def _record(row: Explanation) -> dict[str, Any]:
    record = row._asdict()
    record.update({name: record[name].as_dict() for name in ESTIMATES})
    record["opposite"] = row.opposite and _record(row.opposite)
    return record


def _read(run: Run, text: str) -> Explanation:
    try:
        return _explanation(json.loads(text))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise _damaged(run.explanations, error) from None


def _explanation(record: dict[str, Any]) -> Explanation:
    estimates = {name: Estimate.from_dict(record[name]) for name in ESTIMATES}
    opposite = record["opposite"] and _explanation(record["opposite"])
    return Explanation(**{**record, **estimates, "opposite": opposite})


# --- the file ------------------------------------------------------------------------------------


def _facts(path: Path, sae: str | None) -> dict[str, Any]:
    if not path.is_file():
        return {}
    with contextlib.closing(_connected(path)) as connection:
        meta = _meta(connection, path)
    return json.loads(meta["methods"]) if meta.get("sae") == sae else {}


def _ask(run: Run, sql: str, *arguments: Any) -> list[tuple]:
    if not run.explanations.is_file():
        return []
    with contextlib.closing(_connected(run.explanations)) as connection:
        if _meta(connection, run.explanations).get("sae") != run.sae_digest():
            return []
        try:
            return connection.execute(sql, arguments).fetchall()
        except sqlite3.DatabaseError as error:
            raise _damaged(run.explanations, error) from None


def _connected(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)


def _meta(connection: sqlite3.Connection, path: Path) -> dict[str, str]:
    try:
        meta = dict(connection.execute("select key, value from meta"))
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from None
    if meta.get("schema") != SCHEMA:
        other = f"{path} has schema {meta.get('schema')!r}, this version reads {SCHEMA!r}"
        raise UsageError(f"{other}: {AGAIN}")
    return meta


def _damaged(path: Path, error: Exception) -> FailedRun:
    return FailedRun(f"{path} is damaged ({error}): {AGAIN}")
