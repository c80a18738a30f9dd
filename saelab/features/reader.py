"""Reading a feature index: everything the app, the command line and notebooks ask of it. Imports no
torch.

Shapes: T positions of a context.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from saelab.errors import UsageError
from saelab.features import file, search
from saelab.features.records import (
    Bin,
    Example,
    Feature,
    Hit,
    Logit,
    Match,
    Neighbour,
    Passage,
    Row,
    Table,
    Token,
)
from saelab.features.schema import LOWEST, MIN_SEEN, N_TOKENS, PER_OCTAVE
from saelab.spelling import spell

SORTS = {
    "feature": "f.id",
    "density": "f.density",
    "mean": "f.mean",
    "max": "abs(f.max)",
    "cosine": "abs(m.cosine)",
    "matches": "hit.token {direction}, hit.examples",
}
ROW = (
    "f.id, f.fired, f.density, f.mean, f.max, f.positive, f.tokens, m.other, m.cosine, "
    "m.partner_cosine"
)
SOURCE = "feature f left join nearest m on m.feature = f.id and m.sae = 0"
HITS = (
    "select json_extract(value, '$[0]') as feature, json_extract(value, '$[1]') as token, "
    "json_extract(value, '$[2]') as examples from json_each(?)"
)
STRONG = """
select t.text, s.total, s.mean, s.fired, t.seen
from feature_token s join token t on t.id = s.token where s.feature = ?
"""
LOGITS = """
select t.text, l.value from logit l join token t on t.id = l.token
where l.feature = ? order by l.rank
"""
NEIGHBOURS = """
select n.other, n.cosine, f.tokens from neighbour n join feature f on f.id = n.other
where n.feature = ? order by n.rank
"""
EXAMPLES = """
select e.band, e.rank, e.context, e.position, e.peak, e.positions, e.activations,
    c.tokens, c.documents
from example e join context c on c.id = e.context where e.feature = ? order by e.band, e.rank
"""


def _row(row: Sequence) -> Row:
    *values, tokens, other, cosine, partner, strong, examples = row
    hit = None if examples is None else Hit(bool(strong), examples)
    return Row._make([*values, json.loads(tokens), other, cosine, partner, hit])


class FeatureIndex:
    """A feature index, opened for reading. Use one per thread, or `close` it when done (it is a
    context manager).

    Raises UsageError if there is no such file, it is no index, or it was written by another
    version, FailedRun if it is damaged.

    >>> with FeatureIndex("runs/demo/features.db") as index:
    ...     strongest = index.table(sort="max", limit=5).rows
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.summary: dict[str, Any]
        self._connection, self.summary = file.open(self.path)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> "FeatureIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_features(self) -> int:
        """F."""
        return self.summary["n_features"]

    def table(
        self,
        sort: str = "density",
        descending: bool = True,
        search: str = "",
        limit: int = 50,
        offset: int = 0,
    ) -> Table:
        """A page of features. search keeps those that a strong token or an example's text matches.

        sort: one of SORTS; dead features come last except when sorting by feature. Raises
        UsageError for another sort.
        """
        if sort not in SORTS or (sort == "matches" and not search.strip()):
            raise UsageError(
                f"no sort {sort!r}; there are {', '.join(SORTS)}, the last only with a search"
            )
        source, columns, arguments = SOURCE, "null, null", []
        if search.strip():
            hits = [[feature, *hit] for feature, hit in self.search(search).items()]
            source += f" join ({HITS}) hit on hit.feature = f.id"
            columns, arguments = "hit.token, hit.examples", [json.dumps(hits)]
        total = self._connection.execute(f"select count(*) from {source}", arguments).fetchone()[0]
        direction = "desc" if descending else "asc"
        dead_last = "" if sort == "feature" else "f.fired = 0, "
        order = f"{dead_last}{SORTS[sort].format(direction=direction)} {direction}, f.id"
        sql = f"select {ROW}, {columns} from {source} order by {order} limit ? offset ?"
        rows = self._connection.execute(sql, [*arguments, limit, offset])
        return Table([_row(row) for row in rows], total)

    def _check(self, feature: int) -> None:
        if not 0 <= feature < self.n_features:
            last = self.n_features - 1
            raise UsageError(f"no feature {feature}: this SAE has features 0 to {last}")

    def feature(self, feature: int) -> Feature:
        """Everything about a feature but its examples. Raises UsageError for a number the SAE does
        not have."""
        self._check(feature)
        ask = self._connection.execute
        sql = f"select {ROW}, null, null, f.histogram from {SOURCE} where f.id = ?"
        *row, histogram = ask(sql, (feature,)).fetchone()
        by_total = ask(f"{STRONG} and s.by_total < ? order by s.by_total", (feature, N_TOKENS))
        by_mean = ask(
            f"{STRONG} and s.by_mean < ? and t.seen >= ? order by s.by_mean",
            (feature, N_TOKENS, MIN_SEEN),
        )
        # The promoted tokens are stored first, then as many suppressed ones.
        logits = [Logit(*columns) for columns in ask(LOGITS, (feature,))]
        half = len(logits) // 2
        return Feature(
            row=_row(row),
            by_total=[Token(*columns) for columns in by_total],
            by_mean=[Token(*columns) for columns in by_mean],
            promoted=logits[:half],
            suppressed=logits[half:],
            neighbours=self.neighbours(feature),
            matches=self.matches(feature),
            histogram=_bins(histogram),
        )

    def neighbours(self, feature: int) -> list[Neighbour]:
        """The features with the nearest decoder rows, nearest first."""
        rows = self._connection.execute(NEIGHBOURS, (feature,))
        return [Neighbour(other, cosine, json.loads(tokens)) for other, cosine, tokens in rows]

    def matches(self, feature: int) -> list[Match]:
        """What every other SAE that the index was built with has of a feature."""
        sql = "select sae, other, cosine, partner, partner_cosine from nearest where feature = ?"
        matches = []
        for number, *columns in self._connection.execute(f"{sql} order by sae", (feature,)):
            sae = self.summary["others"][number]
            matched, bar = sae["share"] is not None, sae["threshold"]
            above = abs(columns[-1] or 0) > bar if matched else None
            matches.append(Match._make([sae["name"], *columns, above, bar, sae["null"]]))
        return matches

    def examples(self, feature: int) -> list[Example]:
        """Top contexts by falling |peak|, then those of the quantile bands, weakest band first."""
        self._check(feature)
        rows = self._connection.execute(EXAMPLES, (feature,)).fetchall()
        ids = {number: np.frombuffer(blob, "<i4") for _, _, number, *_, blob, _ in rows}
        every_id = {token for ids_T in ids.values() for token in ids_T.tolist()}
        pieces = search.pieces(self._connection, every_id)
        examples = []
        for band, rank, context, position, peak, positions, activations, _, documents in rows:
            dense_T = np.zeros(len(ids[context]), np.float32)
            dense_T[np.frombuffer(positions, "<i4")] = np.frombuffer(activations, "<f4")
            words = spell([pieces[token] for token in ids[context].tolist()])
            document = search.document(self._connection, documents, position)
            examples.append(
                Example(band, rank, context, position, peak, words, dense_T.tolist(), document)
            )
        return examples

    def search(self, text: str) -> dict[int, Hit]:
        """Features that match a text: see `search.features`."""
        return search.features(self._connection, text)

    def tokens(self, text: str) -> list[str]:
        """Texts of the tokens that contain a text, most frequent first."""
        sql = "select text from token where id in (select value from json_each(?))"
        sql += " order by seen desc, id"
        return self._column(sql, json.dumps(search.tokens(self._connection, text)))

    def passages(self, text: str, limit: int = 20) -> list[Passage]:
        """Places in the corpus that contain a text, best first: see `search.passages`."""
        return search.passages(self._connection, text, limit)

    def densities(self) -> np.ndarray:
        """[F] share of tokens each feature fired on."""
        return np.array(self._column("select density from feature order by id"))

    def means(self) -> np.ndarray:
        """[F] mean |activation| of each feature over the tokens on which it fires; 0 of one that
        never does."""
        return np.array(self._column("select coalesce(mean, 0.0) from feature order by id"))

    def cosines(self, sae: int = 0) -> np.ndarray:
        """[F] cosine with the nearest feature of the sae-th other SAE; empty if there is none."""
        sql = "select cosine from nearest where sae = ? order by feature"
        return np.array(self._column(sql, sae))

    def _column(self, sql: str, *arguments: object) -> list:
        return [row[0] for row in self._connection.execute(sql, arguments)]


def _bins(blob: bytes) -> list[Bin]:
    """The occupied bins, ascending."""
    bins = []
    for number, count in np.frombuffer(blob, "<i4").reshape(-1, 2).tolist():
        sign, step = (1, number) if number >= 0 else (-1, -1 - number)
        near, far = (sign * 2.0 ** (LOWEST + at / PER_OCTAVE) for at in (step, step + 1))
        bins.append(Bin(min(near, far), max(near, far), count))
    return sorted(bins)
