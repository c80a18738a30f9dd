"""Families of rules: each gives every place of a corpus one key, and a rule is a few of its keys
(of an ordered family a range).

Shapes: C contexts of T positions, M = C * T places, K keys, V vocabulary, U units.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from saelab.explaining import kinds
from saelab.explaining.corpus import Corpus
from saelab.spelling import Piece, alone, spell

OF_TOKENS = ("token", "bigram", "trigram", "previous token", "token before the previous")
OF_TEXT = ("kind", "kinds", "region", "kind in region", "place in line", "indent")
LONGEST = 64  # of the places in a line and the indents that are told apart


class Family(NamedTuple):
    """One key per place."""

    name: str
    ids: NDArray
    """[M] int32: number of each place's key"""
    values: NDArray
    """[K] int64, ascending: the keys by number; below 0: the place has none"""
    told: Callable[[Sequence[int]], str]
    """a rule of these keys in words"""
    ordered: bool = False
    """whether rules are ranges of keys"""
    most: int = 8
    """keys of a rule, at most"""
    allowed: Any = None
    """[U, K] sparse: the keys that a unit's rule may have; None: all"""

    def counts(self, places_M: NDArray) -> NDArray:
        """[K] how many of some places have each key."""
        return np.bincount(self.ids[places_M], minlength=len(self.values))

    def matrix(self) -> Any:
        """[M, K] sparse: 1 at each place's key."""
        n = len(self.ids)
        parts = (np.ones(n, np.int32), self.ids, np.arange(n + 1))
        return scipy.sparse.csr_array(parts, shape=(n, len(self.values)))


def every(
    corpus: Corpus, pieces: Sequence[Piece] | None, promoted_UJ: NDArray | None = None
) -> Iterator[Family]:
    """The families, the plainest first, one at a time; those that `absent` names are not there.

    pieces: what every token reads; None without a tokenizer: rules name ids. promoted_UJ: the
    output tokens that each unit promotes.
    """
    now, words = _tokens(corpus, pieces)
    before, earlier, after = _shifted(now, 1), _shifted(now, 2), _shifted(now, -1)
    pair = _joined(before, now, len(words.texts))
    yield family("token", now, words.on)
    yield family("bigram", pair, words.bigrams)
    yield family("trigram", _joined(earlier, pair, len(words.texts) ** 2), words.trigrams)
    yield family("previous token", before, words.after)
    yield family("token before the previous", earlier, words.one_after)
    if pieces is not None:
        yield from _structure(corpus, words)
    position_CT = np.broadcast_to(np.arange(now.shape[1]), now.shape)
    yield family("position", position_CT, _range("position", "of the context", 0), ordered=True)
    if promoted_UJ is not None:
        output = family("output token", after, words.promoted)
        yield output._replace(allowed=_allowed(promoted_UJ, output.values))


def absent(
    corpus: Corpus, pieces: Sequence[Piece] | None, promoted_UJ: NDArray | None = None
) -> dict[str, str]:
    """The families that cannot be had of a corpus, by name, each with the reason."""
    why: dict[str, str] = {}
    if pieces is None:
        why |= {name: "there is no tokenizer: what tokens read is not known" for name in OF_TEXT}
        if _numbers_rows(corpus):
            why |= {name: "tokens are unknown: each row has its own number" for name in OF_TOKENS}
    if promoted_UJ is None:
        why["output token"] = "which output tokens it promotes is not known"
    return why


def _numbers_rows(corpus: Corpus) -> bool:
    """Whether no token stands twice, as where they are numbers of rows."""
    tokens_N = corpus.tokens[corpus.counted]
    return len(np.unique(tokens_N)) == len(tokens_N)


def _tokens(corpus: Corpus, pieces: Sequence[Piece] | None) -> tuple[NDArray, "_Words"]:
    """[C, T] numbers of the tokens, and what they read: without a tokenizer their ids, but numbers
    of rows are all the same."""
    if pieces is not None:
        return corpus.tokens.astype(np.int64), _Words(pieces)
    if _numbers_rows(corpus):
        return np.zeros(corpus.tokens.shape, np.int64), _Words([""])
    ids_V, now = np.unique(corpus.tokens, return_inverse=True)
    return now.reshape(corpus.tokens.shape), _Words([f"⟨{number}⟩" for number in ids_V.tolist()])


def _structure(corpus: Corpus, words: "_Words") -> Iterator[Family]:
    """Kinds of tokens, and places in line and context."""
    texts, tokens_CT = words.texts, corpus.tokens
    kind_V = np.array([2 * kinds.kind(text) + text.startswith(" ") for text in texts])
    kind_CT = kind_V[tokens_CT]
    yield family("kind", kind_CT, _on_kinds)._replace(most=3)
    both = family("kinds", _joined(_shifted(kind_CT, 1), kind_CT, _N_KINDS), _on_two_kinds)
    yield both._replace(most=3)
    region_CT = kinds.regions(tokens_CT, texts)
    yield family("region", region_CT, _in_regions)._replace(most=2)
    inside = family("kind in region", _joined(region_CT, kind_CT, _N_KINDS), _inside)
    yield inside._replace(most=3)
    in_line_CT, indent_CT = (np.minimum(c, LONGEST) for c in kinds.lines(tokens_CT, texts))
    yield family("place in line", in_line_CT, _range("token", "of a line"), ordered=True)
    yield family("indent", indent_CT, _range("column", "of indentation", 0), ordered=True)


def family(
    name: str, keys_CT: NDArray, told: Callable[[Sequence[int]], str], ordered: bool = False
) -> Family:
    """A family from the key of every place."""
    values_K, ids_M = np.unique(keys_CT.reshape(-1), return_inverse=True)
    return Family(name, ids_M.astype(np.int32), values_K.astype(np.int64), told, ordered)


def _shifted(keys_CT: NDArray, by: int) -> NDArray:
    """The key `by` positions before each; -1 where the context has none."""
    none = np.full((len(keys_CT), abs(by)), -1, np.int64)
    parts = [none, keys_CT[:, :-by]] if by > 0 else [keys_CT[:, -by:], none]
    return np.concatenate(parts, axis=1)


def _joined(first_CT: NDArray, second_CT: NDArray, n_second: int) -> NDArray:
    """One key for two; -1 where either is missing."""
    joined_CT = first_CT.astype(np.int64) * n_second + second_CT
    return np.where((first_CT < 0) | (second_CT < 0), -1, joined_CT)


def _allowed(promoted_UJ: NDArray, values_K: NDArray) -> Any:
    """[U, K] sparse: which keys are among the tokens of each unit."""
    id_UJ = np.searchsorted(values_K, promoted_UJ).clip(max=len(values_K) - 1)
    unit_N, column_N = np.nonzero(values_K[id_UJ] == promoted_UJ)
    cells = (unit_N, id_UJ[unit_N, column_N])
    shape = (len(promoted_UJ), len(values_K))
    return scipy.sparse.csr_array((np.ones(len(unit_N), np.int32), cells), shape=shape)


# --- in words ------------------------------------------------------------------------------------

_N_KINDS = 2 * len(kinds.KINDS)


class _Words:
    """Rules on tokens in words: each quoted as JSON does, so that blanks and breaks are seen."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self.texts = [alone(piece) for piece in pieces]

    def _quoted(self, *tokens: int) -> str:
        row = [self.pieces[token] for token in tokens]
        return json.dumps("".join(spell(row)), ensure_ascii=False)

    def _any(self, keys: Sequence[int]) -> str:
        return any_of([self._quoted(key) for key in keys])

    def on(self, keys: Sequence[int]) -> str:
        """On tokens."""
        return f"on {self._any(keys)}"

    def bigrams(self, keys: Sequence[int]) -> str:
        """On the last token of bigrams."""
        n = len(self.pieces)
        return f"at the end of {any_of([self._quoted(*divmod(key, n)) for key in keys])}"

    def trigrams(self, keys: Sequence[int]) -> str:
        """On the last token of trigrams."""
        n = len(self.pieces)
        rows = [(key // n**2, *divmod(key % n**2, n)) for key in keys]
        return f"at the end of {any_of([self._quoted(*row) for row in rows])}"

    def after(self, keys: Sequence[int]) -> str:
        """On whatever follows tokens."""
        return f"after {self._any(keys)}"

    def one_after(self, keys: Sequence[int]) -> str:
        """On whatever follows the token behind tokens."""
        return f"two tokens after {self._any(keys)}"

    def promoted(self, keys: Sequence[int]) -> str:
        """On whatever stands before tokens that the feature promotes."""
        return f"before {self._any(keys)}, which it promotes"


def any_of(words: Sequence[str]) -> str:
    """Alternatives in words.

    >>> any_of(["a", "b", "c"])
    'a, b or c'
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _kind(key: int) -> str:
    number, blank = divmod(key, 2)
    return kinds.KINDS[number] + (" after a blank" if blank else "")


def _on_kinds(keys: Sequence[int]) -> str:
    both = {key // 2 for key in keys if key ^ 1 in keys}
    names = [kinds.KINDS[number] for number in sorted(both)]
    names += [_kind(key) for key in keys if key // 2 not in both]
    return f"on {any_of(names)}"


def _on_two_kinds(keys: Sequence[int]) -> str:
    pairs = (divmod(key, _N_KINDS) for key in keys)
    return f"on {any_of([f'{_kind(now)} behind {_kind(before)}' for before, now in pairs])}"


def _in_regions(keys: Sequence[int]) -> str:
    return any_of([_region(key) for key in keys])


def _region(number: int) -> str:
    name = kinds.REGIONS[number]
    return "in code" if name == "code" else f"in a {name}"


def _inside(keys: Sequence[int]) -> str:
    by_region: dict[int, list[int]] = {}
    for key in keys:
        by_region.setdefault(key // _N_KINDS, []).append(key % _N_KINDS)
    return "; ".join(f"{_on_kinds(kind)} {_region(n)}" for n, kind in by_region.items())


def _range(unit: str, where: str, first: int = 1) -> Callable[[Sequence[int]], str]:
    def told(keys: Sequence[int]) -> str:
        low, high = min(keys) + first, max(keys) + first
        span = f"{unit} {low}" if low == high else f"{unit}s {low} to {high}"
        return f"at {span} {where}"

    return told
