"""The text of single tokens, spaces and broken characters included, whatever the tokenizer's
alphabet."""

import re
from typing import Any

BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_alphabet() -> dict[str, int]:
    """The byte each printable character stands for in a byte-level BPE (GPT-2): itself where
    printable, else from U+0100 up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {
        chr(0x100 + number): byte for number, byte in enumerate(rest)
    }


def token_texts(tokenizer: Any, n_vocabulary: int) -> list[str]:
    """The text of tokens 0 to n_vocabulary - 1; bytes that are no whole character appear as \\xNN,
    ids without one as ⟨n⟩.

    tokenizer: anything with `__len__`, `convert_ids_to_tokens(ids)` and `all_special_ids`, such as
    one of transformers.
    """
    n_known = min(len(tokenizer), n_vocabulary)
    pieces = tokenizer.convert_ids_to_tokens(list(range(n_known)))
    special = set(tokenizer.all_special_ids)
    alphabet = byte_alphabet()
    byte_level = any(piece and piece.startswith("Ġ") for piece in pieces)
    texts = []
    for number, piece in enumerate(pieces):
        if piece is None or number in special:
            texts.append(piece or f"⟨{number}⟩")
        elif match := BYTE.fullmatch(piece):
            texts.append(bytes([int(match[1], 16)]).decode("utf-8", "backslashreplace"))
        elif byte_level and all(character in alphabet for character in piece):
            texts.append(
                bytes(alphabet[character] for character in piece).decode(
                    "utf-8", "backslashreplace"
                )
            )
        else:
            texts.append(piece.replace("▁", " "))
    return texts + [f"⟨{number}⟩" for number in range(n_known, n_vocabulary)]
