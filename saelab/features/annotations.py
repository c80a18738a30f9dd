"""What people say of features: labels, notes, stars and lists, in a SQLite file beside the index.

Every change is a row that is never rewritten, so whoever writes at the same time, or last, takes
nothing away: the newest row of a field is its value, the older ones its history. A row says of
which SAE it is, so that a run that is trained anew does not wear the labels of the SAE before.
Imports no torch.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from saelab.errors import UsageError
from saelab.features import edits

LONGEST = {"label": 200, "note": 100_000, "list": 80}  # characters
# With max() SQLite takes the other columns from the row that has it: the newest of each field.
NEWEST = "select feature, field, name, value, max(id) from edit where sae = ? {} group by 1, 2, 3"
INSERT = "insert into edit (sae, feature, field, name, value, at) values (?, ?, ?, ?, ?, ?)"


class Annotation(NamedTuple):
    """What is said of one feature."""

    feature: int
    """its number"""
    label: str = ""
    """a line: what it stands for"""
    note: str = ""
    """any text"""
    starred: bool = False
    """whether somebody wants to find it again"""
    lists: tuple[str, ...] = ()
    """names of the lists it is on, in order"""


class Edit(NamedTuple):
    """One change, as it was made."""

    at: str
    """when, in UTC"""
    field: str
    """label, note, star or list"""
    name: str
    """of the list, else empty"""
    value: str
    """the text; of a star or list "1", or "" where it was taken away"""


def identity(summary: Mapping[str, Any]) -> str:
    """Which SAE an index is of: the SHA-256 of its weights, else one of what the index says of its
    origin and size. summary: `FeatureIndex.summary`."""
    if digest := summary.get("sae"):
        return digest
    facts = {key: summary.get(key) for key in ("origin", "hook", "n_features", "d_model")}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Annotations:
    """The annotations of one SAE's features. Each call opens the file by itself, so any thread or
    process may use its own at the same time; reading makes no file.

    Raises UsageError for a feature the SAE does not have, FailedRun for a file that is damaged,
    made by another version, or cannot be written.

    >>> here = Annotations(run.annotations, identity(index.summary), index.n_features)
    >>> here.write(7, label="closing brackets", starred=True)
    """

    def __init__(self, path: Path | str, sae: str, n_features: int) -> None:
        self.path, self.sae, self.n_features = Path(path), sae, n_features

    def of(self, feature: int) -> Annotation:
        """What is said of a feature; empty fields where nothing is."""
        self._check(feature)
        sql = NEWEST.format("and feature = ?")
        return _gathered(self._read(sql, self.sae, feature)).get(feature, Annotation(feature))

    def all(self) -> dict[int, Annotation]:
        """Every feature of which something is said, by number."""
        every = _gathered(self._read(NEWEST.format(""), self.sae))
        return {number: one for number, one in every.items() if one != Annotation(number)}

    def labels(self) -> dict[int, str]:
        """The labels by feature."""
        return {number: one.label for number, one in self.all().items() if one.label}

    def lists(self) -> list[str]:
        """Names of all lists that have a feature on them."""
        return sorted({name for one in self.all().values() for name in one.lists})

    def history(self, feature: int) -> list[Edit]:
        """Every change of a feature's annotations, newest first."""
        self._check(feature)
        sql = "select at, field, name, value from edit where sae = ? and feature = ? order by id"
        return [Edit._make(row) for row in self._read(f"{sql} desc", self.sae, feature)]

    def of_others(self) -> int:
        """How many features of other SAEs, such as an earlier one of this run, have annotations
        here."""
        sql = "select count(*) from (select distinct sae, feature from edit where sae != ?)"
        return sum(count for (count,) in self._read(sql, self.sae))

    def write(
        self,
        feature: int,
        *,
        label: str | None = None,
        note: str | None = None,
        starred: bool | None = None,
        add: Iterable[str] = (),
        remove: Iterable[str] = (),
    ) -> None:
        """Change what is given of a feature's annotations. add, remove: lists it goes on or
        leaves."""
        self._check(feature)
        texts = {"label": label, "note": note}
        changes = [(field, "", _clean(field, value)) for field, value in texts.items() if value]
        changes += [(field, "", "") for field, value in texts.items() if value == ""]
        if starred is not None:
            changes.append(("star", "", "1" if starred else ""))
        changes += [("list", _clean("list", name), "1") for name in add]
        changes += [("list", _clean("list", name), "") for name in remove]
        self._append([(feature, *change) for change in changes])

    def extend(self, annotations: Iterable[Annotation]) -> None:
        """Write several at once, all or none; their empty fields change nothing."""
        changes = []
        for one in annotations:
            self._check(one.feature)
            texts = {"label": one.label, "note": one.note}
            said = [(name, "", _clean(name, text)) for name, text in texts.items() if text]
            said += [("star", "", "1")] if one.starred else []
            said += [("list", _clean("list", name), "1") for name in one.lists]
            changes += [(one.feature, *change) for change in said]
        self._append(changes)

    def _check(self, feature: int) -> None:
        if not 0 <= feature < self.n_features:
            last = self.n_features - 1
            raise UsageError(f"no feature {feature}: this SAE has features 0 to {last}")

    def _append(self, changes: list[tuple[int, str, str, str]]) -> None:
        """Add those changes that change something, in one transaction."""
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        sql = NEWEST.format("and feature = ? and field = ? and name = ?")
        with edits.writing(self.path) as connection:
            for feature, field, name, value in changes:
                rows = connection.execute(sql, (self.sae, feature, field, name)).fetchall()
                if (rows[0][3] if rows else "") != value:
                    connection.execute(INSERT, (self.sae, feature, field, name, value, at))

    def _read(self, sql: str, *arguments: object) -> list[tuple]:
        return edits.read(self.path, sql, *arguments)


def _clean(field: str, text: str) -> str:
    """A text as it is kept: of a label and a list's name one line. Raises UsageError for one that
    is too long, or a list's name that is none."""
    text = text.encode("utf-8", "replace").decode().replace("\0", "")
    text = text.strip() if field == "note" else " ".join(text.split())
    if len(text) > LONGEST[field]:
        most = f"{LONGEST[field]:,} characters"
        raise UsageError(f"a {field} has at most {most}, this one has {len(text):,}")
    if field == "list" and (not text or ";" in text):
        raise UsageError(f"a list's name is a text without `;`, not {text!r}")
    return text


def _gathered(rows: Iterable[tuple]) -> dict[int, Annotation]:
    """Annotations by feature from the newest row of each field."""
    every: dict[int, Annotation] = {}
    for feature, field, name, value, _ in rows:
        one = every.get(feature, Annotation(feature))
        if field == "list":
            one = one._replace(lists=(*one.lists, name) if value else one.lists)
        elif field == "star":
            one = one._replace(starred=bool(value))
        else:
            one = one._replace(**{field: value})
        every[feature] = one
    return every
