"""What a reading leaves out: records without a text, files that cannot be read."""

from collections import Counter
from typing import Any

from saelab.errors import UsageError

NULL = "has no text (null)"
HALF = "holds half a character (a lone surrogate)"
NAMED = 3  # files named to people; a manifest names all


class Skipped:
    """Records and files left out so far, or refused where `strict`."""

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.records: Counter[str] = Counter()
        self.first: dict[str, str] = {}  # the first such record by reason
        self.files: list[str] = []

    def record(self, name: str, why: str) -> None:
        """Leave a record out. Raises UsageError where that is not allowed."""
        if self.strict:
            raise UsageError(f"{name} {why}")
        self.records[why] += 1
        self.first.setdefault(why, name)

    def file(self, error: UsageError) -> None:
        """Leave out what is left of a file. Raises the error where that is not allowed."""
        if self.strict:
            raise error
        self.files.append(str(error))

    def restore(self, notes: dict[str, Any]) -> None:
        """Go on from notes that were taken before."""
        before = notes.get("skipped", {"records": {}, "files": []})
        self.records, self.files = Counter(before["records"]), [*before["files"]]

    def notes(self) -> dict[str, Any]:
        """For a manifest; empty where nothing was left out."""
        if not self.records and not self.files:
            return {}
        return {"skipped": {"records": dict(self.records), "files": [*self.files]}}

    def lines(self) -> list[str]:
        """For people."""
        return lines(self.notes())


def lines(notes: dict[str, Any]) -> list[str]:
    """Notes for people."""
    skipped = notes.get("skipped") or {"records": {}, "files": []}
    said = [f"{n:,} records left out: each {why}" for why, n in skipped["records"].items()]
    files = skipped["files"]
    said += [f"left out: {why}" for why in files[:NAMED]]
    if len(files) > NAMED:
        said.append(f"and {len(files) - NAMED:,} more files; the cache's manifest names them all")
    return said
