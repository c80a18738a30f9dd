"""Searching an index: for tokens, phrases, output tokens, and texts that others wrote of features.
Imports no torch.

Shapes: T positions of a context, W phrases, N records.
"""

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.errors import UsageError
from saelab.features.groups import best
from saelab.features.packing import unpack
from saelab.features.records import Hit, Passage
from saelab.features.schema import HOME, ID, PLACE
from saelab.features.vocabulary import Phrase, Vocabulary, phrases
from saelab.spelling import spell

BEFORE, AFTER = 20, 10  # tokens shown around a firing; a phrase up to BEFORE before it is near it
CONTEXTS = 200  # contexts with a phrase that are looked at, evenly among all of them
MOST = 1000  # hits listed of one place
N_FEATURES = 12  # features named per passage
WHERE = ("tokens", "contexts", "outputs", "labels", "explanations")
COLUMNS = {"tokens": "features", "outputs": "promoted"}  # of the table `token`
Texts = Mapping[str, Mapping[int, str]]


class Library(NamedTuple):
    """What is searched."""

    connection: sqlite3.Connection
    vocabulary: Vocabulary
    n_examples: NDArray
    """[F] examples of each feature"""
    kept: NDArray
    """[F] bool: which features are looked for"""


def search(
    library: Library, query: str, where: Collection[str], whole: bool, texts: Texts
) -> list[Hit]:
    """Features that a query finds, best first, each by its best hit: score = selectivity x
    coverage, both between 0 and 1.

    `tokens`: a token holds the query (whole: is it). Selectivity is the share of the feature's
    activation of one sign that lies on the token, coverage the share of the token's occurrences on
    which it fires; exact, over all that was indexed. `outputs`: a token among the feature's most
    promoted ones (by negative values: most suppressed ones) holds the query: its logit over the
    feature's largest, times its logit over the largest that any such feature gives it. `contexts`:
    the phrases stand within BEFORE tokens up to an example's firing: the share of the feature's
    examples, times the share of the contexts with the phrases; estimated on at most CONTEXTS of
    them. Any other place is a name in `texts`, {feature: text}: a text that holds the query, by the
    share of its characters. Of each place the MOST best hits count. In quotes a phrase is exact,
    blanks and case included; else all words are wanted, whatever their case. Raises UsageError for
    another place.
    """
    hits: dict[int, Hit] = {}
    for hit in _hits(library, query, where, whole, texts):
        known = hits.get(hit.feature)
        if known is None or hit.score > known.score:
            hits[hit.feature] = hit
    return sorted(hits.values(), key=lambda hit: (-hit.score, hit.feature))


def _hits(
    library: Library, query: str, where: Collection[str], whole: bool, texts: Texts
) -> Iterator[Hit]:
    parts = phrases(query)
    if not parts:
        return
    for name in where:
        if name in texts:
            yield from _in_texts(name, texts[name], parts, library.kept)
        elif name in COLUMNS:
            yield from _at_tokens(library, name, library.vocabulary.matching(query, whole))
        elif name == "contexts":
            yield from _in_contexts(library, query.strip(), parts)
        elif name not in WHERE:
            places = ", ".join(dict.fromkeys([*WHERE, *texts]))
            raise UsageError(f"no place {name!r} to search in; there are {places}")


def _in_texts(
    name: str, texts: Mapping[int, str], parts: list[Phrase], kept_F: NDArray
) -> Iterator[Hit]:
    n_characters = sum(len(part.text) for part in parts)
    for feature, text in texts.items():
        if (
            0 <= feature < len(kept_F)
            and kept_F[feature]
            and all(part.within(text) for part in parts)
        ):
            yield Hit(feature, name, text, 1, min(1.0, n_characters / len(text)), 1.0)


def _at_tokens(library: Library, name: str, tokens: list[int]) -> Iterator[Hit]:
    """The best hit of each feature on any of the tokens."""
    sql = f"select id, {COLUMNS[name]} from token where id in (select value from json_each(?))"
    rows = library.connection.execute(sql, (json.dumps(tokens),)).fetchall()
    homes = [np.frombuffer(blob, HOME) for _, blob in rows]
    if not homes:
        return
    home_N = np.concatenate(homes)
    token_N = np.repeat([token for token, _ in rows], [len(part) for part in homes])
    kept = np.flatnonzero(library.kept[home_N["feature"]])
    home_N, token_N = home_N[kept], token_N[kept]
    # In float64: products rounded once more would make ties of scores that differ.
    score_N = home_N["selectivity"].astype(np.float64) * home_N["coverage"]
    kept = best(home_N["feature"], score_N, 1)
    kept = kept[np.argsort(-score_N[kept], kind="stable")[:MOST]]
    for (feature, sign, *factors), token in zip(
        home_N[kept].tolist(), token_N[kept].tolist(), strict=True
    ):
        yield Hit(feature, name, library.vocabulary.text(token), sign, *factors)


def _in_contexts(library: Library, query: str, parts: list[Phrase]) -> Iterator[Hit]:
    numbers = contexts(library.connection, parts)
    looked = _spread(numbers, CONTEXTS)
    n_with, n_features = 0, len(library.n_examples)
    count_F, covered_F = np.zeros(n_features, np.int64), np.zeros(n_features, np.int64)
    sum_F = np.zeros(n_features)
    for context in _read(library, looked):
        near_T = _behind(_matched(context.texts, context.first, parts))
        n_with += bool(near_T.any())
        near_N = context.places[near_T[context.places["position"]]]
        np.add.at(count_F, near_N["feature"], 1)
        np.add.at(sum_F, near_N["feature"], near_N["value"])
        covered_F[near_N["feature"]] += 1  # once, however many examples it has here
    scale = len(numbers) / max(len(looked), 1)
    selectivity_F = np.minimum(1, scale * count_F / np.maximum(library.n_examples, 1))
    coverage_F = covered_F / max(n_with, 1)
    score_F = np.where(library.kept, selectivity_F * coverage_F, 0)
    for feature in np.argsort(-score_F, kind="stable")[:MOST].tolist():
        if not score_F[feature]:
            return
        sign = 1 if sum_F[feature] >= 0 else -1
        factors = (float(selectivity_F[feature]), float(coverage_F[feature]))
        yield Hit(feature, "contexts", query, sign, *factors)


def contexts(connection: sqlite3.Connection, parts: list[Phrase]) -> list[int]:
    """Contexts that hold every phrase, whatever its case."""
    folded = [part.text.casefold() for part in parts]
    sql = "select id from context where " + " and ".join("instr(text, ?)" for _ in folded)
    return [row[0] for row in connection.execute(f"{sql} order by id", folded)]


def _spread(numbers: list[int], most: int) -> list[int]:
    """At most so many of them, evenly: neighbours are of one document."""
    if len(numbers) <= most:
        return numbers
    return [numbers[at * len(numbers) // most] for at in range(most)]


class _Context(NamedTuple):
    number: int
    texts: list[str]
    first: int
    """position of the first token that counts"""
    documents: str
    places: NDArray
    """records PLACE of the examples here, by falling |value|"""


def _read(library: Library, numbers: list[int]) -> Iterator[_Context]:
    sql = (
        "select id, first, tokens, documents, examples from context "
        "where id in (select value from json_each(?)) order by id"
    )
    for number, first, ids, documents, examples in library.connection.execute(
        sql, (json.dumps(numbers),)
    ):
        texts = spell(library.vocabulary.pieces(unpack(ids, ID).tolist()))
        yield _Context(number, texts, first, documents, unpack(examples, PLACE))


def passages(library: Library, query: str, limit: int = 20) -> list[Passage]:
    """Of contexts that hold every phrase of a query within a window, the surroundings of the first
    such place, with the features that fire behind it."""
    parts = phrases(query)
    if not parts:
        return []
    numbers = _spread(contexts(library.connection, parts), 4 * limit)
    places = (_passage(library, context, parts) for context in _read(library, numbers))
    return [passage for passage in places if passage is not None][:limit]


def _passage(library: Library, context: _Context, parts: list[Phrase]) -> Passage | None:
    matched_WT = _matched(context.texts, context.first, parts)
    near_T = _behind(matched_WT)
    if not near_T.any():
        return None
    at = int(np.argmax(near_T & np.any(matched_WT, axis=0)))
    first, last = max(context.first, at - BEFORE), at + BEFORE + 1
    window = slice(first, last)
    close: dict[int, float] = {}
    for feature, position, value in context.places.tolist():
        if first <= position < last and near_T[position]:
            close.setdefault(feature, value)
    matched = np.flatnonzero(np.any(matched_WT[:, window], axis=0)).tolist()
    owner = document(library.connection, context.documents, at)
    features = list(close.items())[:N_FEATURES]
    return Passage(context.number, owner, first, context.texts[window], matched, features)


def document(connection: sqlite3.Connection, owners: str, position: int) -> str:
    """The name of the document a position of a context lies in."""
    number = [document for head, document in json.loads(owners) if head <= position][-1]
    return connection.execute("select name from document where id = ?", (number,)).fetchone()[0]


def _matched(texts: list[str], first: int, parts: list[Phrase]) -> NDArray:
    """[W, T]: the tokens from `first` on that an occurrence of each phrase covers."""
    matched_WT = np.zeros((len(parts), len(texts)), bool)
    for row, part in zip(matched_WT, parts, strict=True):
        pieces = [part.of(piece) for piece in texts]
        starts = np.cumsum([0, *map(len, pieces)])
        joined = "".join(pieces)
        begin_M = np.array([*_occurrences(joined, part.text, int(starts[first]))], np.int64)
        ends_2M = np.stack([begin_M, begin_M + len(part.text) - 1])
        head_M, last_M = np.searchsorted(starts, ends_2M, side="right") - 1
        # Each occurrence opens a span of tokens and closes it behind its last one.
        opened = np.bincount(head_M, minlength=len(texts) + 1)
        closed = np.bincount(last_M + 1, minlength=len(texts) + 1)
        row[:] = np.cumsum(opened - closed)[: len(texts)] > 0
    return matched_WT


def _occurrences(text: str, phrase: str, start: int) -> Iterator[int]:
    """Where a phrase begins in a text, from `start` on; occurrences may overlap."""
    at = text.find(phrase, start)
    while at >= 0:
        yield at
        at = text.find(phrase, at + 1)


def _behind(matched_WT: NDArray) -> NDArray:
    """[T]: the positions with every phrase, at least in part, within BEFORE tokens up to them."""
    near_T = np.ones(matched_WT.shape[1], bool)
    for row in matched_WT:
        covered = np.cumsum(row)
        before = np.concatenate([np.zeros(BEFORE + 1, np.int64), covered])[: len(row)]
        near_T &= covered > before
    return near_T
