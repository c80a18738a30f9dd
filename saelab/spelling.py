"""What tokens read, spaces included, whatever the tokenizer's alphabet: alone, and in a row, where
the bytes of several make up one character.

A piece is what a token reads: a string, or bytes that are no whole characters by themselves.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
Piece = str | bytes


def byte_alphabet() -> dict[str, int]:
    """The byte each printable character stands for in a byte-level BPE (GPT-2): itself where
    printable, else from U+0100 up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + number): byte for number, byte in enumerate(rest)
    }


def pieces(tokenizer: Any, n_vocabulary: int) -> list[Piece]:
    """What tokens 0 to n_vocabulary - 1 read; those without a text ⟨n⟩.

    tokenizer: anything with `__len__`, `convert_ids_to_tokens(ids)` and `all_special_ids`, such as
    one of transformers.
    """
    n_known = min(len(tokenizer), n_vocabulary)
    names = tokenizer.convert_ids_to_tokens(list(range(n_known)))
    literal = {*tokenizer.all_special_ids, *getattr(tokenizer, "added_tokens_decoder", ())}
    alphabet = byte_alphabet()
    byte_level = any(name and name.startswith("Ġ") for name in names)
    read: list[Piece] = []
    for number, name in enumerate(names):
        if name is None or number in literal:
            read.append(name or f"⟨{number}⟩")
        elif match := BYTE.fullmatch(name):
            read.append(_piece(bytes([int(match[1], 16)])))
        elif byte_level and all(character in alphabet for character in name):
            read.append(_piece(bytes(alphabet[character] for character in name)))
        else:
            read.append(name.replace("▁", " "))
    return read + [f"⟨{number}⟩" for number in range(n_known, n_vocabulary)]


def _piece(raw: bytes) -> Piece:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def alone(piece: Piece) -> str:
    """A piece by itself: bytes that are no whole character appear as \\xNN."""
    return piece if isinstance(piece, str) else piece.decode("utf-8", "backslashreplace")


def spell(row: Sequence[Piece]) -> list[str]:
    """The text of each token of a row. A character of which several tokens hold the bytes stands
    with the first of them, and the others have none; bytes that make up no character appear as
    \\xNN.

    >>> spell(["a ", b"\\xf0\\x9f", b"\\x98\\x80", b"\\xff"])
    ['a ', '😀', '', '\\\\xff']
    """
    texts = [piece if isinstance(piece, str) else "" for piece in row]
    at = 0
    while at < len(row):
        end = at
        while end < len(row) and isinstance(row[end], bytes):
            end += 1
        if end > at:
            texts[at:end] = _joined([piece for piece in row[at:end] if isinstance(piece, bytes)])
        at = end + 1
    return texts


def _joined(run: list[bytes]) -> list[str]:
    """The characters of pieces that follow each other, each with the piece it begins in."""
    owners = [number for number, piece in enumerate(run) for _ in piece]
    texts, at = [""] * len(run), 0
    # A byte that is no part of a character becomes a lone surrogate, one for one.
    for character in b"".join(run).decode("utf-8", "surrogateescape"):
        stray = "\udc80" <= character <= "\udcff"
        texts[owners[at]] += f"\\x{ord(character) - 0xDC00:02x}" if stray else character
        at += 1 if stray else len(character.encode())
    return texts


def characters(texts: Sequence[str], first: int, last: int) -> Iterator[range]:
    """Positions first to last in groups: a token, and those behind it that have no text because it
    shows the character they end."""
    # A window may begin within a character, which then is shown all the same.
    while first > 0 and not texts[first]:
        first -= 1
    while first < last:
        end = first + 1
        while end < len(texts) and not texts[end]:
            end += 1
        yield range(first, end)
        first = end
