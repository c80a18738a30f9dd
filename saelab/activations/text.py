"""Text sources: the standard library, the bundled mixture, local files and folders, and datasets of
the hub, as documents."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from typing import Any

from saelab import textfiles
from saelab.bundled import corpus
from saelab.documents import Document, Place, Split, split
from saelab.errors import UsageError
from saelab.models import hub
from saelab.textfiles import Skipped
from saelab.textfiles.reader import text_of

BUILT_IN = ("stdlib", "bundled-mix")
DECIDING = 200  # documents at a text's beginning that decide how it is split


@dataclass(frozen=True)
class Text:
    """A text source and how it is read.

    name: `stdlib`; `bundled-mix`; a file; a folder, read recursively; or a hub dataset, `NAME` or
    `NAME:CONFIG`, of which the split `train` is streamed. Files are plain text, JSON (an array, or
    values one after the other), CSV, TSV or Parquet, told by their suffix in any case, compressed
    or not; folders may be those of `datasets`' `save_to_disk`.

        text = Text("corpus.jsonl.gz", field="content")
        documents = text.documents()
    """

    name: str
    field: str = "text"
    """field or column of records that holds the text"""
    strict: bool = False
    """refuse the text where a file or record would be left out"""
    seed: int = 0
    """draws the prompts of `bundled-mix`"""

    def documents(
        self,
        words: list[str] | None = None,
        skipped: Skipped | None = None,
        place: Place | None = None,
    ) -> Iterator[Document]:
        """Its documents; files of a folder are held out by their relative path, everything else by
        its text.

        words: the tokenizer's single-token words, for `bundled-mix`. skipped: is told of what is
        left out: records whose text is null or holds half a character, and of a folder files that
        cannot be read. place: that of a document, to go on from it without reading what lies before
        it; those of hub datasets have one. Raises UsageError for what is missing, empty, damaged or
        without the field.
        """
        if self.name == "stdlib":
            return corpus.stdlib()
        if self.name == "bundled-mix":
            if words is None:
                raise UsageError("bundled-mix needs the words that are single tokens of the model")
            return corpus.mixture(words, self.seed)
        skipped = skipped or Skipped(self.strict)
        path = Path(self.name).expanduser()
        if path.is_dir():
            return textfiles.folder(path, self.field, skipped)
        if path.is_file():
            return textfiles.file(path, self.field, skipped)
        if textfiles.kind(path) or self.name.startswith((".", "/", "~")) or _is_deep(self.name):
            raise UsageError(f"no such text file or folder: {self.name}")
        return _dataset(self.name, self.field, skipped, place)

    @cached_property
    def split(self) -> Split:
        """Which of its documents are held out, as its first DECIDING say. Raises UsageError for a
        text of one document, and for whatever is wrong with these."""
        if self.name in BUILT_IN:
            return Split()
        head = [(one.name, one.key) for one in islice(self.documents(), DECIDING)]
        if len({key for _, key in head}) < 2:
            several = f"{len(head)} documents of the same text"
            raise UsageError(
                f"{self.name} is {several if len(head) > 1 else 'one document'}, and neither side "
                "of the split may be empty: give at least two"
            )
        return split(head)


def documents(
    source: str, model_words: list[str] | None = None, field: str = "text", seed: int = 0
) -> Iterator[Document]:
    """The documents of a text source: see `Text`."""
    return Text(source, field, seed=seed).documents(model_words)


def is_here(source: str) -> bool:
    """Whether a text source is read without a network."""
    return source in ("stdlib", "bundled-mix") or Path(source).expanduser().exists()


def words(tokenizer: Any) -> list[str]:
    """The vocabulary's lower-case or capitalised words of more than two letters that are one token
    after a space, sorted."""
    spaced = (token[1:] for token in tokenizer.get_vocab() if token.startswith(("Ġ", "▁")))
    return sorted(
        w
        for w in spaced
        if len(w) > 2 and w.isascii() and w.isalpha() and (w.islower() or w.istitle())
    )


def _is_deep(name: str) -> bool:
    return name.count("/") > 1


def name_of(source: str, record: int) -> str:
    """The name of a record of a hub dataset."""
    return f"{source}#{record}"


def _dataset(source: str, field: str, skipped: Skipped, place: Place | None) -> Iterator[Document]:
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
    first = 0
    if place is not None:
        records.load_state_dict(place.stream)
        first = place.record
    state = getattr(records, "state_dict", None)
    stream = iter(records)
    for number in count(first):
        before = state() if state else {}
        record = next(stream, None)
        if record is None:
            return
        where = name_of(source, number)
        notes = skipped.notes()
        text = text_of(record, field, f"{source} record {number}", where, skipped)
        if text.strip():
            place = Place(number, before, notes) if state else None
            yield Document(where, text, text, place)
