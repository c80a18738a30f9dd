"""A tokenizer as a corpus needs it: text is text, whatever it spells, and the tokens that bound
contexts and documents are the tokenizer's own.

The tokenizer must be untouched: a TransformerLens bridge gives one without them tokens to begin
and to end with.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from saelab.errors import UsageError

NONE = "none"


class Bounds(NamedTuple):
    """The tokens between which text stands."""

    bos: int | None
    """starts every context"""
    eos: int | None
    """stands between documents"""
    bos_rule: str
    """where the first comes from, in words"""


def bounds(tokenizer: Any, asked: int | str | None = None) -> Bounds:
    """The tokens that start contexts and part documents.

    asked: the id of the first, "none" for contexts that start with text, None for the tokenizer's
    own BOS, or its end-of-text token where it has none. Raises UsageError where it has neither.
    """
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if asked == NONE:
        return Bounds(None, bos if eos is None else eos, "none")
    if asked is not None:
        if not str(asked).isascii() or not str(asked).isdigit():
            raise UsageError(f"bos={asked!r} is neither a token's id nor {NONE}")
        given = int(asked)
        return Bounds(given, given if eos is None else eos, f"token {given}, as asked for")
    if bos is None and eos is None:
        raise UsageError(
            f"this tokenizer has neither a BOS nor an end-of-text token{_first_of(tokenizer)}: "
            f"say which token starts each context with --bos ID, or --bos {NONE}"
        )
    if bos is None:
        return Bounds(eos, eos, "end-of-text token, as the tokenizer has no BOS")
    return Bounds(bos, bos if eos is None else eos, "bos token")


def _first_of(tokenizer: Any) -> str:
    first = getattr(tokenizer, "cls_token_id", None)
    return "" if first is None else f" (its {tokenizer.cls_token} is {first})"


def special(tokenizer: Any) -> set[int]:
    """Ids of the tokens that stand for no text."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    marked = {number for number, token in added.items() if getattr(token, "special", False)}
    return marked | set(tokenizer.all_special_ids)


def check_fits(tokenizer: Any, n_embeddings: int, name: str) -> None:
    """Raise UsageError where text may become a token that the model has no embedding for. Added
    tokens may lie beyond: text never becomes one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        largest = tokenizer.vocab_size - 1
    else:
        largest = max(backend.get_vocab(with_added_tokens=False).values(), default=-1)
    if largest >= n_embeddings:
        raise UsageError(
            f"the tokenizer of {name} has ids up to {largest:,}, the model embeddings for "
            f"{n_embeddings:,}: it is another model's tokenizer"
        )


class Encoder:
    """Turns text into token ids, no token put before or behind it.

    parse_special: tokens that were added to the vocabulary are found where text spells them out
    (`<|endoftext|>`). Otherwise only those made of blanks are, with which some vocabularies spell
    indented text.

        Encoder(tokenizer).ids(["one text", "another"])
    """

    def __init__(self, tokenizer: Any, parse_special: bool = False) -> None:
        self.tokenizer, self.parse_special = tokenizer, parse_special
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self.backend = None if backend is None else _backend(backend, parse_special)

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text."""
        if self.backend is not None:
            encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
            return [encoding.ids for encoding in encodings]
        options = {"add_special_tokens": False, "verbose": False}
        split = not self.parse_special
        return self.tokenizer(list(texts), split_special_tokens=split, **options)["input_ids"]

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The token ids of a text, and the characters that each covers. Raises UsageError for a
        tokenizer that does not say."""
        if self.backend is None:
            raise UsageError("this tokenizer does not say which characters its tokens cover")
        encoding = self.backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets


def _backend(backend: Any, parse_special: bool) -> Any:
    """A copy of a `tokenizers.Tokenizer` that neither cuts nor pads."""
    from tokenizers import Tokenizer

    state = json.loads(backend.to_str())
    if not parse_special:
        _hide(state)
    copy = Tokenizer.from_str(json.dumps(state))
    copy.no_truncation()
    copy.no_padding()
    return copy


def _hide(state: dict[str, Any]) -> None:
    """Take from a tokenizer's state what makes added tokens of text: they get names that no text
    holds, and keep their ids."""
    model = state["model"]
    # Older files write a merge as one string with a blank between its halves.
    merges = model.get("merges", ())
    merged = {"".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges}
    vocabulary = model.get("vocab", {})
    known = set(vocabulary) if isinstance(vocabulary, dict) else {piece for piece, _ in vocabulary}
    kept, names = [], {}
    for token in state["added_tokens"]:
        content = token["content"]
        if content.replace("▁", " ").isspace():
            kept.append(token)
        elif content not in known or (token["special"] and content not in merged):
            # Noncharacters: no valid text has them.
            names[content] = f"\ufdd0{token['id']}\ufdd1"
            kept.append({**token, "content": names[content]})
        # What is left is a piece of the vocabulary that merging may give.
    state["added_tokens"] = kept
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
