"""Writing the index's tables; `schema` says what they hold.

Shapes: F features, V vocabulary, S examples, N records, K kept per feature, T positions.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from saelab import digests
from saelab.features.collect import Contexts
from saelab.features.examples import Examples
from saelab.features.lists import Lists
from saelab.features.packing import pack
from saelab.features.schema import BAR, BINS, EXAMPLE, ID, LISTS, MORE, PAIR, PLACE, SCHEMA, TABLES
from saelab.features.shown import Shown
from saelab.spelling import Piece, alone, spell

ROWS = 2048  # features whose blobs are made at a time
PLACED = np.dtype([("context", "<i4"), ("place", PLACE)])


def create(connection: sqlite3.Connection) -> None:
    """Make the empty tables; the file is temporary until it is renamed, so no journal protects
    it."""
    connection.executescript(
        "pragma journal_mode = off; pragma synchronous = off; pragma page_size = 8192;" + TABLES
    )


def write_meta(connection: sqlite3.Connection, **values: object) -> None:
    """Facts about the index, as JSON, schema and a blank digest included."""
    own = [("schema", SCHEMA), (digests.FIELD, digests.BLANK)]
    rows = [*own, *((key, json.dumps(value)) for key, value in values.items())]
    connection.executemany("insert into meta values (?, ?)", rows)


def write_arrays(connection: sqlite3.Connection, **arrays: NDArray) -> None:
    """Columns, whole."""
    rows = (
        (name, entries.dtype.str, json.dumps(entries.shape), entries.tobytes())
        for name, entries in arrays.items()
    )
    connection.executemany("insert into array values (?, ?, ?, ?)", rows)


def write_features(
    connection: sqlite3.Connection, n_features: int, lists: dict[str, Lists]
) -> None:
    """A row per feature, of all `LISTS`."""
    each = [lists[name] for name in LISTS]
    sql = f"insert into feature values (?{', ?' * len(LISTS)})"
    for first in range(0, n_features, ROWS):
        last = min(first + ROWS, n_features)
        blobs = [column.packed(first, last) for column in each]
        connection.executemany(sql, zip(range(first, last), *blobs, strict=True))


def add_histograms(blocks: Iterable[NDArray], n_poles_each: int, bars: Lists) -> None:
    """Occupied bins, from the rows of `PoleSums.blocks`: their number, -1 - bin for negative
    values, ascending by value of the sign."""
    for rows_N in blocks:
        pole_N, bin_N = np.divmod(rows_N["key"], BINS)
        records = np.empty(len(pole_N), BAR)
        negative_N = pole_N % n_poles_each == 1
        records["bin"] = np.where(negative_N, -1 - bin_N, bin_N)
        records["fired"] = rows_N["fired"]
        bars.add(records, pole_N // n_poles_each)


def add_examples(
    blocks: Iterable[Shown], n_poles_each: int, examples: Lists, pairs: Lists
) -> NDArray:
    """Examples by feature, and their pairs; records PLACED of those that a context's row names."""
    placed = []
    for shown in blocks:
        feature_S = shown.examples.pole // n_poles_each
        examples.add(_examples(shown, n_poles_each), feature_S)
        pairs.add(_pairs(shown.examples), np.repeat(feature_S, shown.examples.n_pairs))
        placed.append(_placed(shown, feature_S))
    return np.concatenate(placed)


def _examples(shown: Shown, n_poles_each: int) -> NDArray:
    examples = shown.examples
    records = np.empty(len(examples.pole), EXAMPLE)
    records["sign"] = 1 - 2 * (examples.pole % n_poles_each)
    records["band"], records["pairs"] = shown.band, examples.n_pairs
    for name in ("context", "position", "value", "copies"):
        records[name] = getattr(examples, name)
    return records


def _pairs(examples: Examples) -> NDArray:
    pairs = np.empty(len(examples.values), PAIR)
    pairs["position"], pairs["value"] = examples.positions, examples.values
    return pairs


def _placed(shown: Shown, feature_S: NDArray) -> NDArray:
    named = shown.band != MORE
    records = np.empty(int(named.sum()), PLACED)
    records["context"] = shown.examples.context[named]
    records["place"]["feature"] = feature_S[named]
    records["place"]["position"] = shown.examples.position[named]
    records["place"]["value"] = shown.examples.value[named]
    return records


def write_tokens(
    connection: sqlite3.Connection,
    words: Sequence[Piece],
    seen_V: NDArray,
    homes: Lists,
    promoted: Lists,
) -> None:
    """The vocabulary, with the features at home on each token, and those that promote it."""
    for first in range(0, len(words), ROWS):
        last = min(first + ROWS, len(words))
        part = words[first:last]
        broken = (None if isinstance(word, str) else word for word in part)
        columns = (map(alone, part), broken, seen_V[first:last].tolist())
        blobs = (homes.blobs(first, last), promoted.blobs(first, last))
        rows = zip(range(first, last), *columns, *blobs, strict=True)
        connection.executemany("insert into token values (?, ?, ?, ?, ?, ?)", rows)


def write_contexts(
    connection: sqlite3.Connection,
    placed_S: NDArray,
    contexts: Contexts,
    words: Sequence[Piece] | None,
    names: Sequence[str],
) -> None:
    """The contexts that examples are in, each once, up to the last position that counts, with the
    examples in it by falling |value|; and the documents they are of. placed_S: as `add_examples`
    gives them. words: what the tokens read; None: they are no words, and no text is searched."""
    order = np.lexsort((-np.abs(placed_S["place"]["value"]), placed_S["context"]))
    number_C, first_C = np.unique(placed_S["context"][order], return_index=True)
    bounds = np.append(first_C, len(order))
    places = (placed_S["place"][order[start:end]].tobytes() for start, end in pairwise(bounds))
    blobs = (pack(one, PLACE.itemsize) for one in places)
    owners: set[int] = set()
    rows = _contexts(number_C.tolist(), contexts, words, blobs, owners)
    connection.executemany("insert into context values (?, ?, ?, ?, ?, ?)", rows)
    documents = ((number, names[number]) for number in sorted(owners))
    connection.executemany("insert into document values (?, ?)", documents)


def _contexts(
    numbers: list[int],
    contexts: Contexts,
    words: Sequence[Piece] | None,
    blobs: Iterator[bytes],
    owners: set[int],
) -> Iterator[tuple]:
    """Rows of `context`; documents as JSON [[first position, document], ...], which are added to
    the owners."""
    for number, examples in zip(numbers, blobs, strict=True):
        counted = contexts.counted[number].nonzero()[0]
        first, last = int(counted[0]), int(counted[-1]) + 1
        ids_T, documents_T = contexts.tokens[number, :last], contexts.documents[number, :last]
        starts = np.flatnonzero(np.diff(documents_T, prepend=documents_T[0] - 1))
        spans = [[int(start), int(documents_T[start])] for start in starts]
        owners.update(documents_T[counted].tolist(), (document for _, document in spans))
        text = None
        if words is not None:
            text = "".join(spell([words[token] for token in ids_T[first:].tolist()])).casefold()
        ids = pack(ids_T.astype(ID).tobytes(), ID.itemsize)
        yield number, first, ids, json.dumps(spans), examples, text
