"""Writing the index's rows; `schema` says what they hold.

Shapes: F features, V vocabulary, H histogram bins, S examples, N (feature, token) rows, K kept per
feature, T positions.
"""

import json
import sqlite3

import numpy as np
from numpy.typing import NDArray

from saelab import digests
from saelab.features.collect import N_BANDS, Contexts, Statistics, bands
from saelab.features.examples import Examples, place_in_group
from saelab.features.schema import MIN_SEEN, N_LISTED, N_TOKENS, SCHEMA, TABLES
from saelab.spelling import Piece, alone, spell


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


def write_statistics(
    connection: sqlite3.Connection,
    statistics: Statistics,
    contexts: Contexts,
    words: list[Piece],
    names: list[str],
) -> None:
    """All that one pass says, with every context read; words, names: of every token and
    document."""
    _write_features(connection, statistics, words)
    used = _write_examples(connection, statistics)
    _write_contexts(connection, used, contexts, words)
    owners = np.unique(contexts.documents[used][contexts.counted[used]])
    rows = ((number, names[number]) for number in owners.tolist())
    connection.executemany("insert into document values (?, ?)", rows)


def _write_features(
    connection: sqlite3.Connection, statistics: Statistics, words: list[Piece]
) -> None:
    """One row per feature, dead ones included, its strongest tokens, and the vocabulary."""
    texts = [*map(alone, words)]
    broken = (None if isinstance(word, str) else word for word in words)
    connection.executemany(
        "insert into token values (?, ?, ?, ?)",
        zip(range(len(texts)), texts, statistics.seen.tolist(), broken, strict=True),
    )
    strongest = _write_tokens(connection, statistics, texts)
    fired_F = np.maximum(statistics.fired, 1)
    columns = (
        statistics.fired,
        statistics.fired / max(statistics.n_tokens, 1),
        statistics.absolute_sum / fired_F,
        statistics.max,
        statistics.positive / fired_F,
    )
    blobs = (
        histogram_FH.astype("<i4").tobytes() for histogram_FH in _trimmed(statistics.histogram)
    )
    rows = zip(
        range(len(fired_F)), *(column.tolist() for column in columns), blobs, strongest, strict=True
    )
    connection.executemany("insert into feature values (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def _trimmed(histogram_F2H: NDArray) -> list[NDArray]:
    """Per feature [n, 2]: the signed number of each occupied bin (-1 - bin for negative values) and
    its count."""
    feature_N, side_N, bin_N = histogram_F2H.nonzero()
    pairs_N2 = np.stack(
        [np.where(side_N == 1, bin_N, -1 - bin_N), histogram_F2H[feature_N, side_N, bin_N]], 1
    )
    return np.split(pairs_N2, np.searchsorted(feature_N, np.arange(1, len(histogram_F2H))))


def _ranks(feature_N: NDArray, score_N: NDArray) -> NDArray:
    """Each row's place, 0 the highest score, among the rows of its feature."""
    order = np.lexsort((-score_N, feature_N))
    rank_N = np.empty(len(order), np.int64)
    rank_N[order] = place_in_group(feature_N[order])
    return rank_N


def _write_tokens(
    connection: sqlite3.Connection, statistics: Statistics, texts: list[str]
) -> list[str]:
    """The strongest tokens' rows; returns per feature the N_LISTED strongest by total, as a JSON
    list."""
    seen_N = statistics.seen[statistics.token_id]
    mean_N = statistics.token_total / np.maximum(seen_N, 1)
    by_total_N = _ranks(statistics.token_feature, np.abs(statistics.token_total))
    by_mean_N = _ranks(statistics.token_feature, np.where(seen_N >= MIN_SEEN, np.abs(mean_N), -1))
    kept = np.flatnonzero((by_total_N < N_TOKENS) | ((by_mean_N < N_TOKENS) & (seen_N >= MIN_SEEN)))
    columns = (
        statistics.token_feature,
        statistics.token_id,
        statistics.token_total,
        mean_N,
        statistics.token_fired,
        by_total_N,
        by_mean_N,
    )
    rows = list(zip(*(column[kept].tolist() for column in columns), strict=True))
    connection.executemany("insert into feature_token values (?, ?, ?, ?, ?, ?, ?)", rows)
    strongest: list[list[str]] = [[] for _ in statistics.fired]
    for feature, token, *_, by_total, _ in sorted(rows, key=lambda row: row[5]):
        if by_total < N_LISTED:
            strongest[feature].append(texts[token])
    return [json.dumps(tokens, ensure_ascii=False) for tokens in strongest]


def _write_examples(connection: sqlite3.Connection, statistics: Statistics) -> NDArray:
    """Top contexts as band -1, quantile bands as 0 (weakest) and up. Returns the numbers of the
    contexts they use."""
    _write_band(connection, statistics.top, np.full(len(statistics.top.feature), -1))
    index, band_S = bands(statistics.sampled, statistics.top)
    across = statistics.sampled.take(index)
    _write_band(connection, across, band_S)
    return np.union1d(statistics.top.context, across.context)


def _write_band(connection: sqlite3.Connection, examples: Examples, band_S: NDArray) -> None:
    # Bands count from -1; the examples come by feature, then band.
    rank_S = place_in_group(examples.feature * (N_BANDS + 1) + band_S + 1)
    positions = examples.positions.astype("<i4").tobytes()
    values = examples.values.astype("<f4").tobytes()
    where = (examples.context, examples.position, examples.peak)
    # Both blobs are of 4 bytes an entry, so the examples' bounds are the same in both.
    bounds = (4 * examples.starts[:-1], 4 * examples.starts[1:])
    columns = (examples.feature, band_S, rank_S, *where, *bounds)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    sql = "insert into example values (?, ?, ?, ?, ?, ?, ?, ?)"
    connection.executemany(
        sql, ((*row, positions[first:last], values[first:last]) for *row, first, last in rows)
    )


def _write_contexts(
    connection: sqlite3.Connection,
    numbers: NDArray,
    contexts: Contexts,
    words: list[Piece],
) -> None:
    """The contexts of those numbers, each once, up to the last position that counts: token ids, its
    documents as JSON [[first position, document], ...]. Searched is the text that counts, case
    folded, with blanks behind it that give the last characters a trigram each."""
    rows, texts = [], []
    for number in numbers.tolist():
        counted_T = contexts.counted[number]
        window = slice(int(counted_T.nonzero()[0].max(initial=0)) + 1)
        ids_T, documents_T = contexts.tokens[number, window], contexts.documents[number, window]
        heads = np.flatnonzero(np.diff(documents_T, prepend=documents_T[0] - 1))
        owners = json.dumps([[int(head), int(documents_T[head])] for head in heads])
        rows.append((number, ids_T.astype("<i4").tobytes(), owners))
        counted = spell([words[token] for token in contexts.tokens[number, counted_T].tolist()])
        texts.append((number, "".join(counted).casefold() + "  "))
    connection.executemany("insert into context values (?, ?, ?)", rows)
    connection.executemany("insert into context_search (rowid, text) values (?, ?)", texts)


def write_ranked(
    connection: sqlite3.Connection, table: str, index_FK: NDArray, value_FK: NDArray
) -> None:
    """K ranked (number, value) pairs per feature into `logit` or `neighbour`."""
    n_features, n_kept = index_FK.shape
    feature_N, rank_N = np.divmod(np.arange(n_features * n_kept), max(n_kept, 1))
    columns = (feature_N, rank_N, index_FK.reshape(-1), value_FK.reshape(-1))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    connection.executemany(f"insert into {table} values (?, ?, ?, ?)", rows)
