"""Writing the index's tables; `schema` says what they hold.

Shapes: F features, V vocabulary, S examples, N records, K kept per feature, T positions.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from saelab import digests
from saelab.features.collect import Contexts
from saelab.features.schema import BAR, EXAMPLE, LISTS, MORE, PAIR, PLACE, SCHEMA, TABLES
from saelab.features.shown import Shown
from saelab.features.strongest import Strongest
from saelab.spelling import Piece, alone, spell

ROWS = 2048  # features whose blobs are made at a time


class Lists:
    """Records by feature, of which each feature's are cut out as one blob."""

    def __init__(self, records: NDArray, group_N: NDArray, n_groups: int) -> None:
        self.records = np.ascontiguousarray(records)
        self.bounds = np.searchsorted(group_N, np.arange(n_groups + 1))

    def blobs(self, first: int, last: int) -> list[bytes]:
        """Those of groups first to last."""
        bounds = self.bounds[first : last + 1]
        raw, size = self.records[bounds[0] : bounds[-1]].tobytes(), self.records.dtype.itemsize
        edges = ((bounds - bounds[0]) * size).tolist()
        return [raw[start:end] for start, end in pairwise(edges)]


class Rows:
    """[F, K] records, a row per feature."""

    def __init__(self, rows: NDArray) -> None:
        self.rows = rows

    def blobs(self, first: int, last: int) -> list[bytes]:
        """Those of features first to last."""
        return [row.tobytes() for row in self.rows[first:last]]


class Absent:
    """A column that this index does not have."""

    def blobs(self, first: int, last: int) -> list[bytes]:
        """Nothing, for each."""
        return [b""] * (last - first)


Column = Lists | Rows | Absent


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


COLUMNS = (
    *("tokens", "logits", "neighbours", "cofiring", "histogram", "heads", "examples", "pairs"),
)


def write_features(connection: sqlite3.Connection, n_features: int, **columns: Column) -> None:
    """A row per feature; columns that are not given are empty."""
    each = [columns.get(name, Absent()) for name in LISTS]
    sql = f"insert into feature values (?{', ?' * len(LISTS)})"
    for first in range(0, n_features, ROWS):
        last = min(first + ROWS, n_features)
        blobs = [column.blobs(first, last) for column in each]
        connection.executemany(sql, zip(range(first, last), *blobs, strict=True))


def histograms(histogram_PH: NDArray, n_poles_each: int) -> Lists:
    """Occupied bins: their number, -1 - bin for negative values, ascending by value of the sign."""
    pole_N, bin_N = histogram_PH.nonzero()
    records = np.empty(len(pole_N), BAR)
    negative_N = pole_N % n_poles_each == 1
    records["bin"] = np.where(negative_N, -1 - bin_N, bin_N)
    records["fired"] = histogram_PH[pole_N, bin_N]
    return Lists(records, pole_N // n_poles_each, len(histogram_PH) // n_poles_each)


def example_lists(shown: Shown, n_features: int, n_poles_each: int) -> tuple[Lists, Lists]:
    """Examples by feature, and their pairs."""
    examples = shown.examples
    feature_S = examples.pole // n_poles_each
    records = np.empty(len(feature_S), EXAMPLE)
    records["sign"] = 1 - 2 * (examples.pole % n_poles_each)
    records["band"], records["pairs"] = shown.band, examples.n_pairs
    for name in ("context", "position", "value", "copies"):
        records[name] = getattr(examples, name)
    pairs = np.empty(len(examples.values), PAIR)
    pairs["position"], pairs["value"] = examples.positions, examples.values
    owner_N = np.repeat(feature_S, examples.n_pairs)
    return Lists(records, feature_S, n_features), Lists(pairs, owner_N, n_features)


def write_tokens(
    connection: sqlite3.Connection,
    words: list[Piece],
    seen_V: NDArray,
    strongest: Strongest,
    promoted: Lists | None,
) -> None:
    """The vocabulary, with the features at home on each token, and those that promote it."""
    homes = Lists(strongest.homes, strongest.home_token, len(words))
    each: Column = promoted or Absent()
    for first in range(0, len(words), ROWS):
        last = min(first + ROWS, len(words))
        part = words[first:last]
        broken = (None if isinstance(word, str) else word for word in part)
        columns = (map(alone, part), broken, seen_V[first:last].tolist())
        blobs = (homes.blobs(first, last), each.blobs(first, last))
        rows = zip(range(first, last), *columns, *blobs, strict=True)
        connection.executemany("insert into token values (?, ?, ?, ?, ?, ?)", rows)


def write_contexts(
    connection: sqlite3.Connection,
    shown: Shown,
    contexts: Contexts,
    words: Sequence[Piece] | None,
    names: Sequence[str],
    n_poles_each: int,
) -> None:
    """The contexts that examples are in, each once, up to the last position that counts, with the
    examples in it by falling |value|; and the documents they are of. words: what the tokens read;
    None: they are no words, and no text is searched."""
    examples = shown.examples
    order = np.lexsort((-np.abs(examples.value), examples.context))
    order = order[shown.band[order] != MORE]
    places = np.empty(len(order), PLACE)
    places["feature"] = examples.pole[order] // n_poles_each
    places["position"], places["value"] = examples.position[order], examples.value[order]
    number_C, first_C = np.unique(examples.context[order], return_index=True)
    bounds = np.append(first_C, len(order))
    blobs = (places[bounds[c] : bounds[c + 1]].tobytes() for c in range(len(number_C)))
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
        yield number, first, ids_T.astype("<i4").tobytes(), json.dumps(spans), examples, text
