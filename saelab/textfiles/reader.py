"""The documents of a local file or folder."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from saelab.documents import Document
from saelab.errors import UsageError
from saelab.textfiles import opening
from saelab.textfiles.kinds import SUFFIXES, beginning, is_dataset, kind
from saelab.textfiles.records import listed, records
from saelab.textfiles.skipped import HALF, NULL, Skipped

# Paragraphs of a plain-text file are gathered until a document has at least so many characters;
# one that has far more ends with its line, and no line is read further than the last number.
DOCUMENT_CHARACTERS = 2_000
MOST_CHARACTERS = 50_000
LINE_CHARACTERS = 1 << 20
HALVES = re.compile("[\ud800-\udfff]")


def file(path: Path, field: str, skipped: Skipped) -> Iterator[Document]:
    """The documents of a file: a plain text's paragraphs, or records. Raises UsageError for one
    without any, and for a damaged one."""
    what = next(opening.guarded(path, _kind(path)))
    if what == "text":
        documents = opening.guarded(path, _paragraphs(path))
    else:
        documents = _records(path, _label(path, path.parent), what, field, skipped)
    document = None
    for document in documents:
        yield document
    if document is None:
        raise UsageError(f"{path} holds no {'text' if what == 'text' else 'records with a text'}")


def _kind(path: Path) -> Iterator[str]:
    yield kind(path) or beginning(path)


def folder(root: Path, field: str, skipped: Skipped) -> Iterator[Document]:
    """The documents of every file below `root`, hidden ones left out, in the order of the name's
    digest (a fixed shuffle). A file that cannot be read is left out. Raises UsageError where none
    can."""
    if is_dataset(root):
        yield from _records(root, _label(root, root.parent), "dataset", field, skipped)
        return
    paths = {_label(path, root): (path, what) for path, what in _walk(root, set(), skipped)}
    if not paths and not skipped.files:
        raise UsageError(f"folder {root} holds no text: files read are {', '.join(SUFFIXES)}")
    document = None
    for label in sorted(paths, key=lambda label: hashlib.sha256(label.encode()).digest()):
        path, what = paths[label]
        try:
            for document in _of_folder(path, label, what, field, skipped):
                yield document
        except UsageError as error:
            skipped.file(error)
    if document is None:
        raise UsageError(skipped.files[0] if skipped.files else f"{root} holds no text")


def _label(path: Path, root: Path) -> str:
    """A file's name: its path below the root, what is not UTF-8 in it spelt out."""
    name = path.relative_to(root).as_posix().encode(errors="surrogateescape")
    return name.decode(errors="backslashreplace")


def _walk(root: Path, above: set[Path], skipped: Skipped) -> Iterator[tuple[Path, str]]:
    """Every file of a known kind below a folder, through links, with its kind."""
    real = root.resolve()
    if real in above:  # a link to a folder that holds it
        return
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        skipped.file(UsageError(f"{root} cannot be read: {error.strerror}"))
        return
    for path in entries:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if is_dataset(path):
                yield path, "dataset"
            else:
                yield from _walk(path, above | {real}, skipped)
        elif kind(path) and path.is_file():
            yield path, kind(path)


def _of_folder(
    path: Path, label: str, what: str, field: str, skipped: Skipped
) -> Iterator[Document]:
    """The documents of one file of a folder: a text file is one, the records of others each."""
    if what != "text":
        yield from _records(path, label, what, field, skipped)
        return
    text = next(opening.guarded(path, _whole(path)))
    if text.strip():
        yield Document(label, text, label)


def _whole(path: Path) -> Iterator[str]:
    with opening.text(path, newline="") as file:
        yield file.read()


def _records(path: Path, label: str, what: str, field: str, skipped: Skipped) -> Iterator[Document]:
    """The records of a file, named by their number and held out by their text."""
    for number, record in enumerate(records(path, what, field)):
        name = f"{label}#{number}"
        text = text_of(record, field, f"{path} record {number}", name, skipped)
        if text.strip():
            yield Document(name, text, text)


def text_of(record: Any, field: str, where: str, name: str, skipped: Skipped) -> str:
    """The text of a record, "" if it has none. Raises UsageError for a record that is neither a
    string nor an object with this field."""
    if isinstance(record, dict):
        if not isinstance(record.get(field, 0), str | None):
            raise UsageError(
                f"{where} has no text field {field!r}; its fields are {listed(record)} "
                "(--text-field)"
            )
        record = record[field]
    if record is None:
        skipped.record(name, NULL)
        return ""
    if not isinstance(record, str):
        raise UsageError(
            f"{where} is neither a string nor an object with a field {field!r}: it is "
            f"{type(record).__name__}"
        )
    # Only a string of JSON can hold one: `\ud83d` without its other half.
    if HALVES.search(record):
        skipped.record(name, HALF)
        return ""
    return record


def _paragraphs(path: Path) -> Iterator[Document]:
    """A plain-text file cut at blank lines into documents of at least DOCUMENT_CHARACTERS."""
    label = _label(path, path.parent)
    with opening.text(path) as file:
        for number, text in enumerate(_cut(file)):
            yield Document(f"{label}#{number}", text, text)


def _cut(file: TextIO) -> Iterator[str]:
    gathered: list[str] = []
    n_characters = 0
    while line := file.readline(LINE_CHARACTERS):
        blank = line.endswith("\n") and not line.strip()
        long = n_characters >= MOST_CHARACTERS
        if long or (blank and n_characters >= DOCUMENT_CHARACTERS):
            if text := _document(gathered):
                yield text
            gathered, n_characters = [], 0
        gathered.append(line)
        n_characters += len(line)
    if text := _document(gathered):
        yield text


def _document(lines: list[str]) -> str:
    text = "".join(lines).strip("\r\n")
    return text if text.strip() else ""
