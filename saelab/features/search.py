"""Full-text search of an index: tokens and contexts that contain a text, and the features at home
there. Imports no torch."""

import json
import sqlite3
from collections import Counter

import numpy as np

from saelab.features.records import Hit, Passage
from saelab.features.schema import N_TOKENS
from saelab.spelling import Piece, spell

BEFORE, AFTER = 20, 10  # tokens shown around a peak, and searched
TRIGRAM = 3  # characters of the full-text indexes' entries
ENTRIES = 200  # most frequent entries that a shorter text is looked for in
CONTEXTS = 400  # best-ranked contexts whose examples a search looks at
N_FEATURES = 12  # features named per passage


def _phrase(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def tokens(connection: sqlite3.Connection, text: str) -> list[int]:
    """Ids of the tokens that contain a text, whatever its case; under three characters the trigram
    index cannot help and all are compared."""
    if len(text) >= TRIGRAM:
        sql, argument = "select rowid from token_search where token_search match ?", _phrase(text)
    else:
        connection.create_function("folded", 1, str.casefold, deterministic=True)
        sql, argument = "select id from token where instr(folded(text), ?)", text.casefold()
    return [row[0] for row in connection.execute(sql, (argument,))]


def contexts(connection: sqlite3.Connection, text: str, limit: int = CONTEXTS) -> list[int]:
    """Contexts that contain every word of a text, best first (BM25). Shorter words than three
    characters count where there is no longer one."""
    words = text.casefold().split()
    asked = [_phrase(word) for word in words if len(word) >= TRIGRAM]
    asked = asked or [_beginning(connection, word) for word in words]
    if not all(asked) or not asked:
        return []
    sql = "select rowid from context_search where context_search match ? order by rank limit ?"
    return [row[0] for row in connection.execute(sql, (" AND ".join(asked), limit))]


def _beginning(connection: sqlite3.Connection, word: str) -> str:
    """A query for contexts that hold a word which is shorter than a trigram: one of the trigrams
    that begin with it; "" if there is none. Every character of a context begins one."""
    connection.execute(
        "create virtual table if not exists temp.entry using fts5vocab(main, context_search, row)"
    )
    sql = "select term from entry where term >= ? and term < ? order by doc desc limit ?"
    rows = connection.execute(sql, (word, word + "\U0010ffff", ENTRIES)).fetchall()
    return f"({' OR '.join(_phrase(term) for (term,) in rows)})" if rows else ""


def features(connection: sqlite3.Connection, text: str) -> dict[int, Hit]:
    """Features that match a text: one of their strong tokens contains it, or examples do.

    An example matches if each word is within BEFORE tokens before and AFTER after its peak. Case
    does not count. Examples are looked at in the CONTEXTS best contexts of the full-text search.
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
    words = pieces(connection, set(ids))
    return spell([words[token] for token in ids])


def pieces(connection: sqlite3.Connection, ids: set[int]) -> dict[int, Piece]:
    """What some tokens read."""
    sql = "select id, ifnull(bytes, text) from token where id in (select value from json_each(?))"
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
