"""A document of a corpus, and the project's one rule for holding documents out."""

import hashlib
from typing import NamedTuple


class Document(NamedTuple):
    """name: path relative to the corpus root, or the text's digest. text: the whole document.
    held_out: see `held_out`."""

    name: str
    text: str
    held_out: bool


def digest(key: str) -> int:
    """SHA-256 of a document's key (relative path, or text), as a number."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest(), "big")


def held_out(key: str) -> bool:
    """Whether the document with this key is held out: its digest is 0 modulo 20."""
    return digest(key) % 20 == 0
