"""Whether one file is as it was written, by the digest that is in it or beside it."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from saelab import digests
from saelab.errors import FailedRun
from saelab.files import read_object

Digest = Literal["right", "wrong", "none", "not read"]


class File(NamedTuple):
    """One file of what was looked at."""

    file: str
    """path below it"""
    bytes: int | None
    """None: it is missing"""
    digest: Digest
    """how it compares; `none`: it has none, as older files and those made to be edited"""
    problem: str
    """what is wrong with it, "" if nothing is"""


def look(path: Path, name: str, is_right: Callable[[], bool | None] | None) -> File:
    """A file by what `is_right` says of its digest (None: it is not asked). What that raises is the
    problem."""
    size = path.stat().st_size if path.is_file() else None
    if size is None:
        return File(name, None, "not read", "is missing")
    if is_right is None:
        return File(name, size, "not read", "")
    try:
        answer = is_right()
    except Exception as error:
        return File(name, size, "wrong", " ".join(str(error).split()))
    wrong = "" if answer is not False else "its SHA-256 is not the one that was written"
    said: dict[bool | None, Digest] = {True: "right", False: "wrong", None: "none"}
    return File(name, size, said[answer], wrong)


def by_entry(folder: Path, written: Mapping[str, Any], verify: bool, below: str = "") -> File:
    """A file by its entry in the JSON beside it: its length, and its digest if that is read."""

    def is_right() -> bool:
        digests.check(folder, written, "restore a copy, or make it again")
        return True

    path = folder / written["file"]
    other = path.is_file() and path.stat().st_size != written["bytes"]
    return look(path, below + written["file"], is_right if verify or other else None)


def document(path: Path, name: str) -> File:
    """A JSON file, whose own digest is always read."""
    return look(path, name, lambda: digests.is_right(read_object(path)))


def results(folder: Path) -> tuple[dict[str, Any], list[File]]:
    """How many documents of each kind a folder of graphs or of a circuit holds, and all of its JSON
    files, those for other programs too."""
    files, kinds = [], Counter[str]()
    for path in sorted(folder.rglob("*.json")):
        files.append(document(path, path.relative_to(folder).as_posix()))
        if not files[-1].problem:
            kinds[str(read_object(path).get("schema", "for other programs"))] += 1
    return {"documents": dict(kinds)}, files


def checkpoint(path: Path, below: str, verify: bool) -> Iterator[File]:
    """The file of a checkpoint, or the files of one that several ranks wrote."""
    name = f"{below}{path.name}"
    if not path.is_dir():
        yield look(path, name, (lambda: digests.tensors_right(path)) if verify else None)
        return
    yield document(path / "checkpoint.json", f"{name}/checkpoint.json")
    with contextlib.suppress(FailedRun):  # which that file's row tells
        for written in read_object(path / "checkpoint.json").get("files", []):
            yield by_entry(path, written, verify, f"{name}/")
