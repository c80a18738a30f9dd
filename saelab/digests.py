"""Digests: what lies there is told from what was written, one flipped bit or a cut apart.

A SHA-256 stands in one of three places. The JSON beside a file has an entry for it, with its
length. A JSON document has its own, over its canonical form without that field. A binary file that
has room for a text (a checkpoint, an index) has its own, over its bytes with the digest blanked.
Files of before there were digests have none, which is no damage.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelab.errors import FailedRun

if TYPE_CHECKING:
    from torch import Tensor

FIELD = "sha256"  # of a document's own digest, and of an entry's
DIGEST = re.compile("[0-9a-f]{64}")
MARK = "saelab-sha256:"  # before a binary file's own digest, so that it is found among its bytes
BLANK = MARK + "0" * 64  # what a binary file holds until it is sealed
PIECE = 1 << 22  # bytes of a file that are read at a time

_right: set[tuple] = set()  # path, size, time and digest of the files that this process has read


def sha256(*paths: Path) -> str:
    """SHA-256 over the bytes of files one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
    return digest.hexdigest()


def entry(path: Path) -> dict[str, Any]:
    """What the JSON beside a file says of it: `file`, `bytes`, `sha256`."""
    return {"file": path.name, "bytes": path.stat().st_size, FIELD: sha256(path)}


def check_length(folder: Path, written: Mapping[str, Any], remedy: str) -> Path:
    """The path of a file that has the length of its entry. Raises FailedRun naming one that is
    missing or of another length, with what to do."""
    name, length, digest = (written.get(key) for key in ("file", "bytes", FIELD))
    # A name with a folder in it would lead out of this one.
    if not (isinstance(name, str) and Path(name).name == name and type(length) is int):
        raise FailedRun(f"an entry of {folder} names no file of it with a length: {written}")
    if not isinstance(digest, str):
        raise FailedRun(f"{name} of {folder} has no SHA-256 beside it; {remedy}")
    file = folder / name
    size = file.stat().st_size if file.is_file() else None
    if size != written["bytes"]:
        cut = f"was cut or changed: {size} bytes instead of {written['bytes']}"
        what = "is missing" if size is None else cut
        raise FailedRun(f"{written['file']} of {folder} {what}; {remedy}")
    return file


def check(folder: Path, written: Mapping[str, Any], remedy: str) -> Path:
    """The path of a file whose bytes are those of its entry, read once per process.

    Raises FailedRun naming one that is missing, cut or altered, with what to do.

        weights = check(folder, entry(folder / "sae.safetensors"), "train again")
    """
    file = check_length(folder, written, remedy)
    status = file.stat()
    key = (str(file.resolve()), status.st_size, status.st_mtime_ns, written[FIELD])
    if key not in _right:
        if sha256(file) != written[FIELD]:
            raise FailedRun(
                f"{written['file']} of {folder} was altered: its SHA-256 is not the one written "
                f"beside it; {remedy}"
            )
        _right.add(key)
    return file


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document as its JSON holds it, its own digest last.

    sealed({"schema": "saelab/report/1"})["sha256"]
    """
    # As JSON holds it: keys are strings, tuples are lists.
    plain = json.loads(json.dumps({k: v for k, v in document.items() if k != FIELD}))
    return {**plain, FIELD: _canonical(plain)}


def is_right(document: Mapping[str, Any]) -> bool | None:
    """Whether a document that was read is the one that was sealed; None if it has no digest."""
    if FIELD in document:
        rest = {name: value for name, value in document.items() if name != FIELD}
        return document[FIELD] == _canonical(rest)
    last = [*document.values()][-1] if document else None
    # A digest under another name: a bit of the field's own name must not undo the check.
    return False if isinstance(last, str) and DIGEST.fullmatch(last) else None


def _canonical(plain: Any) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def seal(path: Path) -> None:
    """Write a binary file's own digest in the place of the BLANK that it holds once."""
    digest, places = sha256(path), _places(path, BLANK)
    if len(places) != 1:
        raise ValueError(f"{path} has not one place for its digest")
    with path.open("r+b") as file:
        file.seek(places[0] + len(MARK))
        file.write(digest.encode())


def is_sealed(path: Path, stored: str) -> bool:
    """Whether the bytes of a binary file, which says `stored` of itself, are those that were
    sealed."""
    places = _places(path, stored) if len(stored) == len(BLANK) else []
    return bool(places) and MARK + _blanked(path, places[0]) == stored


def _places(path: Path, text: str) -> list[int]:
    """Where a text stands in a file, which is read in pieces: mapped, all of it would count as this
    process's memory."""
    wanted, places, before = text.encode(), [], b""
    with path.open("rb") as file:
        start = 0
        while piece := file.read(PIECE):
            window = before + piece
            at = window.find(wanted)
            while at >= 0:
                places.append(start - len(before) + at)
                at = window.find(wanted, at + 1)
            start += len(piece)
            before = window[1 - len(wanted) :]  # too short to hold a text twice
    return places


def _blanked(path: Path, at: int) -> str:
    """SHA-256 of a file as it was with the BLANK at a place."""
    digest, start, blank = hashlib.sha256(), 0, BLANK.encode()
    with path.open("rb") as file:
        while piece := bytearray(file.read(PIECE)):
            first, last = max(at - start, 0), min(at + len(blank) - start, len(piece))
            if first < last:
                piece[first:last] = blank[start + first - at : start + last - at]
            digest.update(piece)
            start += len(piece)
    return digest.hexdigest()


def tensors_right(path: Path) -> bool | None:
    """Whether a safetensors file that has its own digest is the one that was sealed; None if it has
    none. Raises safetensors' error for one that is no safetensors file."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        metadata = file.metadata()
    return is_sealed(path, metadata.get(FIELD, "")) if metadata else None


def sealed_tensors(
    path: Path, schema: str, remedy: str
) -> "tuple[dict[str, str], dict[str, Tensor]]":
    """The metadata and tensors of a safetensors file that was sealed. Raises FailedRun, with what
    to do, for one that cannot be read, was altered, or has another schema.

    fields, tensors = sealed_tensors(path, "saelab/dark-matter/1", "run `saelab dark-matter` again")
    """
    from safetensors import safe_open
    from safetensors.torch import load_file

    try:
        whole = tensors_right(path)
        with safe_open(path, "pt") as file:
            fields = file.metadata() or {}
        tensors = load_file(path)
    except Exception as error:
        raise FailedRun(f"{path} cannot be read ({error}); {remedy}") from None
    if not whole:
        raise FailedRun(f"{path} was altered: its SHA-256 is another; {remedy}")
    if (other := fields.get("schema")) != schema:
        raise FailedRun(f"{path} has schema {other!r}, this version reads {schema!r}: {remedy}")
    return fields, tensors
