"""A document of a corpus, and the project's one rule for holding documents out."""

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple


class Place(NamedTuple):
    """Where a text that is streamed stands before a document."""

    record: int
    """number of the document's record"""
    stream: Any
    """what the stream goes on from: plain JSON"""
    skipped: dict[str, Any]
    """notes of what was left out before it"""


class Document(NamedTuple):
    """A text with its name, and the key that decides which split it falls into."""

    name: str
    """path relative to the corpus root, with the record's number where it is one of several"""
    text: str
    """the whole document"""
    key: str
    """a file's path relative to the corpus root, a record's text"""
    place: Place | None = None
    """where the text stands before it, if reading can go on from there"""

    @property
    def held_out(self) -> bool:
        """See `held_out`."""
        return held_out(self.key)


def digest(key: str) -> int:
    """SHA-256 of a document's key (relative path, or text), as a number."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest(), "big")


def held_out(key: str) -> bool:
    """Whether the document with this key is held out: its digest is 0 modulo 20."""
    return digest(key) % 20 == 0


RULE = "held out: SHA-256 of the path relative to the corpus root, or of the text, is 0 mod 20"


class Split(NamedTuple):
    """Which documents are held out: by their digest modulo 20, or one alone."""

    name: str = ""
    """of the one document that is held out; empty: as their digests say"""
    digest: int = 0
    """of that document's key; copies of it are held out with it"""

    @property
    def rule(self) -> str:
        """In words, as manifests keep it."""
        return f"held out: {self.name}, whose SHA-256 is the smallest" if self.name else RULE

    def holds_out(self, key: str) -> bool:
        """Whether the document with this key is held out."""
        return digest(key) == self.digest if self.name else held_out(key)


def split(documents: Iterable[tuple[str, str]]) -> Split:
    """The split of documents of these names and keys: where digests leave one side empty, the
    document with the smallest is held out alone.

    >>> split([("a", "one"), ("b", "two"), ("c", "three")]).name
    'b'
    """
    by_digest: dict[int, str] = {}
    for name, key in documents:
        by_digest.setdefault(digest(key), name)
    smallest = min(by_digest)
    sides = {number % 20 == 0 for number in by_digest}
    return Split() if len(sides) == 2 else Split(by_digest[smallest], smallest)
