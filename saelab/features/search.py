"""Full-text search of an index: tokens and contexts that contain a text, and the features at home
there. Imports no torch."""

import json
import sqlite3
from collections import Counter

import numpy as np

from saelab.features.records import Hit, Passage
from saelab.features.schema import N_TOKENS

BEFORE, AFTER = 20, 10  # tokens shown around a peak, and searched
TRIGRAM = 3  # shortest text the full-text indexes can find
CONTEXTS = 400  # best-ranked contexts whose examples a search looks at
N_FEATURES = 12  # features named per passage


def _phrase(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def tokens(connection: sqlite3.Connection, text: str) -> list[int]:
    """Ids of the tokens that contain a text; under three characters the trigram index cannot help
    and all are compared."""
    if len(text) >= TRIGRAM:
        sql, argument = "select rowid from token_search where token_search match ?", _phrase(text)
    else:
        sql, argument = "select id from token where instr(lower(text), ?)", text.lower()
    return [row[0] for row in connection.execute(sql, (argument,))]


def contexts(connection: sqlite3.Connection, text: str, limit: int = CONTEXTS) -> list[int]:
    """Contexts that contain every word of a text (of those of three characters and more), best
    first (BM25)."""
    words = [word for word in text.split() if len(word) >= TRIGRAM]
    if not words:
        return []
    sql = "select rowid from context_search where context_search match ? order by rank limit ?"
    return [row[0] for row in connection.execute(sql, (" ".join(map(_phrase, words)), limit))]


def features(connection: sqlite3.Connection, text: str) -> dict[int, Hit]:
    """Features that match a text: one of their strong tokens contains it, or examples do.

    An example matches if each word is within BEFORE tokens before and AFTER after its peak. Case
    does not count. Examples are looked at in the CONTEXTS best contexts of the full-text search;
    words under three characters alone find none.
    """
    text = text.strip().casefold()
    if not text:
        return {}
    sql = (
        "select distinct feature from feature_token "
        "where by_total < ? and token in (select value from json_each(?))"
    )
    ids = json.dumps(tokens(connection, text))
    strong = {row[0] for row in connection.execute(sql, (N_TOKENS, ids))}
    hits: Counter[int] = Counter()
    for context in contexts(connection, text):
        near_T = _window(_matched(context_texts(connection, context), text.split()))
        rows = connection.execute(
            "select feature, position from example where context = ?", (context,)
        )
        hits.update(feature for feature, position in rows if near_T[position])
    return {feature: Hit(feature in strong, hits[feature]) for feature in sorted({*strong, *hits})}


def passages(connection: sqlite3.Connection, text: str, limit: int = 20) -> list[Passage]:
    """Of the best contexts that contain a text, the surroundings of its first occurrence."""
    words = text.casefold().split()
    best = contexts(connection, text.casefold(), CONTEXTS)[:limit]
    passages = (_passage(connection, context, words) for context in best)
    return [passage for passage in passages if passage is not None]


def _passage(connection: sqlite3.Connection, context: int, words: list[str]) -> Passage | None:
    texts = context_texts(connection, context)
    matched_WT = _matched(texts, words)
    near_T = _window(matched_WT)
    if not near_T.any():
        return None
    at = int(np.argmax(near_T & np.any(matched_WT, axis=0)))
    first, last = max(1, at - BEFORE), at + BEFORE + 1
    rows = connection.execute(
        "select feature, position, peak from example where context = ? order by abs(peak) desc",
        (context,),
    )
    close = {
        feature: peak
        for feature, position, peak in rows
        if first <= position < last and near_T[position]
    }
    matched = np.flatnonzero(np.any(matched_WT[:, first:last], axis=0)).tolist()
    documents = connection.execute(
        "select documents from context where id = ?", (context,)
    ).fetchone()[0]
    owner = document(connection, documents, at)
    return Passage(
        context, owner, first, texts[first:last], matched, list(close.items())[:N_FEATURES]
    )


def context_texts(connection: sqlite3.Connection, context: int) -> list[str]:
    """The T token texts of a context."""
    blob = connection.execute("select tokens from context where id = ?", (context,)).fetchone()[0]
    ids = np.frombuffer(blob, "<i4").tolist()
    texts = token_texts(connection, set(ids))
    return [texts[token] for token in ids]


def token_texts(connection: sqlite3.Connection, ids: set[int]) -> dict[int, str]:
    """The texts of some tokens."""
    sql = "select id, text from token where id in (select value from json_each(?))"
    return dict(connection.execute(sql, (json.dumps([*ids]),)))


def document(connection: sqlite3.Connection, owners: str, position: int) -> str:
    """The name of the document a position of a context lies in."""
    number = [document for head, document in json.loads(owners) if head <= position][-1]
    return connection.execute("select name from document where id = ?", (number,)).fetchone()[0]


def _matched(texts: list[str], words: list[str]) -> np.ndarray:
    """[W, T]: the tokens that an occurrence of each word covers."""
    pieces = [piece.casefold() for piece in texts]
    starts = np.cumsum([0, *map(len, pieces)])
    joined = "".join(pieces)
    matched_WT = np.zeros((len(words), len(texts)), bool)
    for row, word in zip(matched_WT, words, strict=True):
        at = joined.find(word, starts[1])  # the first token is no text
        while at >= 0:
            first, last = np.searchsorted(starts, [at, at + len(word) - 1], side="right") - 1
            row[first : last + 1] = True
            at = joined.find(word, at + 1)
    return matched_WT


def _window(matched_WT: np.ndarray) -> np.ndarray:
    """[T]: the positions in whose shown window every word stands, at least in part."""
    near_T = np.ones(matched_WT.shape[1], bool)
    for row in matched_WT:
        hit = np.zeros(len(near_T), bool)
        for token in np.flatnonzero(row):
            hit[max(0, token - AFTER) : token + BEFORE + 1] = True
        near_T &= hit
    return near_T
