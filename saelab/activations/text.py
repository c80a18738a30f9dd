"""Text sources: the standard library, the bundled mixture, local files and folders, and datasets of
the hub, as documents."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from saelab.bundled import corpus
from saelab.documents import Document, held_out
from saelab.errors import UsageError
from saelab.models import hub

# Paragraphs of a plain-text file are gathered until a document has at least so many.
DOCUMENT_CHARACTERS = 2_000
TEXT_SUFFIXES = set(
    """
    .c .cpp .css .csv .go .h .html .java .js .md .py .rs .rst .sh .tex .toml .ts .tsv .txt
    .xml .yaml .yml
    """.split()
)
RECORD_SUFFIXES = {".json", ".jsonl", ".parquet"}


def documents(
    source: str, model_words: list[str] | None = None, field: str = "text", seed: int = 0
) -> Iterator[Document]:
    """The documents of a text source.

    source: `stdlib`; `bundled-mix` (needs model_words, the tokenizer's single-token words; seed
    draws its prompts); a file; a folder, read recursively; or a hub dataset, `NAME` or
    `NAME:CONFIG`, of which the split `train` is streamed. Plain text, .json (an array, or lines),
    .jsonl and .parquet are understood; records are strings or objects with `field`. Files of a
    folder are held out by their relative path, everything else by its text. Raises UsageError for
    what is missing, empty, not UTF-8 or without the field.
    """
    if source == "stdlib":
        return corpus.stdlib()
    if source == "bundled-mix":
        if model_words is None:
            raise UsageError("bundled-mix needs the words that are single tokens of the model")
        return corpus.mixture(model_words, seed)
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path, field)
    if path.is_file():
        return (
            _records(path, path.name, field)
            if path.suffix in RECORD_SUFFIXES
            else _paragraphs(path)
        )
    if (
        path.suffix in TEXT_SUFFIXES | RECORD_SUFFIXES
        or source.startswith((".", "/", "~"))
        or source.count("/") > 1
    ):
        raise UsageError(f"no such text file or folder: {source}")
    return _dataset(source, field)


def words(tokenizer: Any) -> list[str]:
    """The vocabulary's lower-case or capitalised words of more than two letters that are one token
    after a space, sorted."""
    spaced = (token[1:] for token in tokenizer.get_vocab() if token.startswith(("Ġ", "▁")))
    return sorted(
        w
        for w in spaced
        if len(w) > 2 and w.isascii() and w.isalpha() and (w.islower() or w.istitle())
    )


def _decode(path: Path) -> str:
    """The file's text, "" if it is blank. Raises UsageError when it is not UTF-8."""
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}"
        ) from None
    return text if text.strip() else ""


def _read(path: Path) -> str:
    """The file's text. Raises UsageError when it is blank or not UTF-8."""
    if text := _decode(path):
        return text
    raise UsageError(f"{path} holds no text")


def _paragraphs(path: Path) -> Iterator[Document]:
    """A plain-text file cut at blank lines into documents of at least DOCUMENT_CHARACTERS."""
    gathered, n_characters, number = [], 0, 0
    pieces = re.split(r"(?<=\n)(?=[^\S\n]*\n)", _read(path))
    for i, piece in enumerate(pieces):
        gathered.append(piece)
        n_characters += len(piece)
        if n_characters >= DOCUMENT_CHARACTERS or i == len(pieces) - 1:
            text = "".join(gathered).strip("\n")
            if text.strip():
                yield Document(f"{path.name}#{number}", text, held_out(text))
                number += 1
            gathered, n_characters = [], 0


def _folder(root: Path, field: str) -> Iterator[Document]:
    """Every text and record file below `root`, hidden ones left out, in the order of its name's
    digest (a fixed shuffle)."""
    names = [
        path.relative_to(root)
        for path in root.rglob("*")
        if path.suffix in TEXT_SUFFIXES | RECORD_SUFFIXES
    ]
    names = [
        name
        for name in names
        if not any(part.startswith(".") for part in name.parts) and (root / name).is_file()
    ]
    if not names:
        kinds = ", ".join(sorted(TEXT_SUFFIXES | RECORD_SUFFIXES))
        raise UsageError(f"folder {root} holds no text: files read are {kinds}")
    for name in sorted(names, key=lambda name: hashlib.sha256(name.as_posix().encode()).digest()):
        path, label = root / name, name.as_posix()
        if path.suffix in RECORD_SUFFIXES:
            yield from _records(path, label, field)
        elif text := _decode(path):
            yield Document(label, text, held_out(label))


def _records(path: Path, label: str, field: str) -> Iterator[Document]:
    """The records of a JSON or Parquet file, named by their number and held out by their text."""
    records = _parquet(path, field) if path.suffix == ".parquet" else _json(path)
    number = -1
    for number, record in enumerate(records):
        text = _text(record, field, f"{path} record {number}")
        if text.strip():
            yield Document(f"{label}#{number}", text, held_out(text))
    if number < 0:
        raise UsageError(f"{path} holds no records")


def _text(record: Any, field: str, where: str) -> str:
    if isinstance(record, str):
        return record
    if not isinstance(record, dict):
        raise UsageError(
            f"{where} is neither a string nor an object with a field {field!r}: it is "
            f"{type(record).__name__}"
        )
    if not isinstance(record.get(field), str):
        raise UsageError(
            f"{where} has no text field {field!r}; its fields are {', '.join(record)} "
            "(--text-field)"
        )
    return record[field]


def _json(path: Path) -> Iterable[Any]:
    """The records of a JSON array, or of a file with one JSON value per line."""
    text = _read(path)
    if path.suffix == ".json":
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            if error.msg != "Extra data":
                raise UsageError(f"{path} is not JSON: {error}") from None
        else:
            return value if isinstance(value, list) else [value]
    return _json_lines(path, text)


def _json_lines(path: Path, text: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise UsageError(f"{path} line {number} is not JSON: {error.msg}") from None


def _parquet(path: Path, field: str) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise UsageError(f"{path} is not a Parquet file: {error}") from None
    names = file.schema_arrow.names
    if field not in names:
        raise UsageError(
            f"{path} has no text field {field!r}; its fields are {', '.join(names)} (--text-field)"
        )
    for batch in file.iter_batches(columns=[field], batch_size=1024):
        yield from batch.column(0).to_pylist()


def _dataset(source: str, field: str) -> Iterator[Document]:
    """The streamed training split of a hub dataset; every record is named by its number."""
    name, _, config = source.partition(":")
    answer = hub.has(name, "dataset")
    if answer != "yes":
        raise UsageError(
            f"unknown text {source!r}: no such file or folder, and as a dataset "
            f"{hub.refusal(answer)}; give a file, a folder, a hub dataset, `stdlib` or "
            "`bundled-mix`"
        )
    import datasets

    try:
        records = datasets.load_dataset(name, config or None, split="train", streaming=True)
    except ValueError as error:
        raise UsageError(
            f"dataset {source!r} cannot be read: {' '.join(str(error).split())} (NAME:CONFIG)"
        ) from error
    for number, record in enumerate(records):
        text = _text(record, field, f"{source} record {number}")
        if text.strip():
            yield Document(f"{source}#{number}", text, held_out(text))
