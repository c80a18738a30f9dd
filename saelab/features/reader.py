"""Reading a feature index: everything the app, the command line and notebooks ask of it. Imports no
torch.

Shapes: F features, T positions of a context.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saelab.errors import UsageError
from saelab.features import file, listing, schema
from saelab.features import search as searching
from saelab.features.records import (
    Beside,
    Bin,
    CoFiring,
    Example,
    Feature,
    Hit,
    Keep,
    Logit,
    Map,
    Match,
    Neighbour,
    Passage,
    Row,
    Table,
    Token,
)
from saelab.features.search import WHERE, Library, Texts, document
from saelab.features.vocabulary import Vocabulary
from saelab.spelling import spell

SORTS = listing.SORTS
NUMBERS = ("fired", "density", "mean", "max", "positive", "interest")
ALL = Keep()


class FeatureIndex:
    """A feature index, opened for reading. Use one per thread, or `close` it when done (it is a
    context manager).

    Raises UsageError if there is no such file, it is no index, or it was written by another
    version, FailedRun if it is damaged; any method FailedRun where damage shows only then.

    >>> with FeatureIndex("runs/demo/features.db") as index:
    ...     first = index.table(limit=5).rows
    ...     at_home = index.search("self", ["tokens"], whole=True)
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.summary: dict[str, Any]
        self._connection: sqlite3.Connection
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

    # --- lists -----------------------------------------------------------------------------------

    @cached_property
    def arrays(self) -> dict[str, NDArray]:
        """A column [F], or rows [F, K], per name: NUMBERS, `examples` (how many), `listed` (ids of
        the strongest tokens), `map`, and of the n-th other SAE `nearest/n`, `cosine/n`,
        `partner/n`, `partner_cosine/n`."""
        rows = self._ask("select name, dtype, shape, entries from array")
        return {
            name: np.frombuffer(entries, dtype).reshape(json.loads(shape))
            for name, dtype, shape, entries in rows
        }

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the tokens read."""
        with file.damage(self.path):
            return Vocabulary(self._connection)

    def order(self, sort: str = "interest", descending: bool = True, keep: Keep = ALL) -> NDArray:
        """Numbers of the features that are kept, in the order of a list; see `listing.order`."""
        return listing.order(self.arrays, sort, descending, keep)

    def beside(self, feature: int, order: NDArray) -> Beside:
        """Who stands before and behind a feature in a list."""
        return listing.beside(feature, order)

    def rows(self, numbers: Iterable[int]) -> list[Row]:
        """What a list says of features, in that order."""
        return [self._row(int(number)) for number in numbers]

    def table(
        self,
        sort: str = "interest",
        descending: bool = True,
        keep: Keep = ALL,
        limit: int = 50,
        offset: int = 0,
    ) -> Table:
        """A page of a list. Raises UsageError for a sort that is none of SORTS."""
        order = self.order(sort, descending, keep)
        return Table(self.rows(order[offset : offset + limit]), len(order))

    def _row(self, feature: int) -> Row:
        arrays = self.arrays
        numbers = [arrays[name][feature].item() for name in NUMBERS]
        other = cosine = partner_cosine = None
        if "nearest/0" in arrays:
            other, cosine = int(arrays["nearest/0"][feature]), float(arrays["cosine/0"][feature])
            partner_cosine = _known(arrays["partner_cosine/0"][feature])
        return Row(feature, *numbers, self._listed(feature), other, cosine, partner_cosine)

    def _listed(self, feature: int) -> list[str]:
        if "listed" not in self.arrays:
            return []
        ids = self.arrays["listed"][feature].tolist()
        return [self.vocabulary.text(token) for token in ids if token >= 0]

    def densities(self) -> NDArray:
        """[F] share of tokens each feature fired on."""
        return self.arrays["density"]

    def means(self) -> NDArray:
        """[F] mean |activation| of each feature over the tokens on which it fires; 0 of one that
        never does."""
        return self.arrays["mean"]

    def cosines(self, sae: int = 0) -> NDArray:
        """[F] cosine with the nearest feature of the sae-th other SAE; empty if there is none."""
        return self.arrays.get(f"cosine/{sae}", np.zeros(0))

    def map(self) -> Map | None:
        """The features in a plane, if the index was made with a map."""
        places = self.arrays.get("map")
        return None if places is None else Map(self.summary["map"], places)

    # --- search ----------------------------------------------------------------------------------

    def search(
        self,
        query: str,
        where: Collection[str] = WHERE,
        whole: bool = False,
        texts: Texts | None = None,
        keep: Keep = ALL,
    ) -> list[Hit]:
        """Features that a query finds, best first; see `search.search`.

        where: places to look in. whole: a token must be the query, not only hold it. texts: what
        else is searched, {place: {feature: text}}, such as labels. keep: among which features.

        >>> index.search('" for"', ["tokens"])[0].score
        """
        with file.damage(self.path):
            hits = searching.search(self._library, query, where, whole, texts or {})
        kept_F = listing.kept_F(self.arrays, keep)
        return [hit for hit in hits if hit.feature < len(kept_F) and kept_F[hit.feature]]

    def tokens(self, query: str, whole: bool = False) -> list[str]:
        """Texts of the tokens that hold a query, most frequent first."""
        return [self.vocabulary.text(token) for token in self.vocabulary.matching(query, whole)]

    def passages(self, query: str, limit: int = 20) -> list[Passage]:
        """Places in the corpus where a query stands: see `search.passages`."""
        with file.damage(self.path):
            return searching.passages(self._library, query, limit)

    @property
    def _library(self) -> Library:
        return Library(self._connection, self.vocabulary, self.arrays["examples"])

    # --- one feature -----------------------------------------------------------------------------

    def _ask(self, sql: str, *arguments: object) -> list[tuple]:
        with file.damage(self.path):
            return self._connection.execute(sql, arguments).fetchall()

    def _lists(self, feature: int, *names: str) -> list[bytes]:
        """Blobs of a feature's row. Raises UsageError for a number the SAE does not have."""
        if not 0 <= feature < self.n_features:
            last = self.n_features - 1
            raise UsageError(f"no feature {feature}: this SAE has features 0 to {last}")
        sql = f"select {', '.join(names)} from feature where id = ?"
        return list(self._ask(sql, feature)[0])

    def feature(self, feature: int) -> Feature:
        """Everything about a feature but its examples. Raises UsageError for a number the SAE does
        not have."""
        names = ("tokens", "logits", "neighbours", "cofiring", "histogram", "heads")
        tokens, logits, neighbours, cofiring, bars, heads = self._lists(feature, *names)
        strong = np.frombuffer(tokens, schema.STRONG)
        # The promoted tokens are stored first, then as many suppressed ones.
        pushed = [
            Logit(self.vocabulary.text(token), value)
            for token, value in np.frombuffer(logits, schema.LOGIT).tolist()
        ]
        half = len(pushed) // 2
        return Feature(
            row=self._row(feature),
            by_total=self._strongest(strong, "by_total"),
            by_mean=self._strongest(strong, "by_mean"),
            promoted=pushed[:half],
            suppressed=pushed[half:],
            neighbours=[
                Neighbour(other, cosine, self._listed(other))
                for other, cosine in np.frombuffer(neighbours, schema.NEIGHBOUR).tolist()
            ],
            cofiring=[
                CoFiring(*columns, self._listed(columns[0]))
                for columns in np.frombuffer(cofiring, schema.COFIRING).tolist()
            ],
            matches=self.matches(feature),
            histogram=_bins(bars),
            heads=np.frombuffer(heads, "<f4").tolist(),
        )

    def _strongest(self, strong: NDArray, by: str) -> list[Token]:
        """Those with a rank, positive ones first."""
        ranked = strong[strong[by] < schema.N_TOKENS]
        ranked = ranked[np.lexsort((ranked[by], -ranked["sign"].astype(int)))]
        strongest = []
        for sign, _, _, token, total, fired, selectivity, coverage in ranked.tolist():
            seen = self.vocabulary.seen[token]
            counts = (total, total / max(seen, 1), fired, seen)
            text = self.vocabulary.text(token)
            strongest.append(Token(text, sign, *counts, selectivity, coverage))
        return strongest

    def matches(self, feature: int) -> list[Match]:
        """What every other SAE that the index was built with has of a feature."""
        matches = []
        for number, sae in enumerate(self.summary["others"]):
            nearest, cosine, partner, pair = (
                self.arrays[f"{key}/{number}"][feature].item()
                for key in ("nearest", "cosine", "partner", "partner_cosine")
            )
            pair, bar = _known(pair), sae["threshold"]
            above = abs(pair or 0) > bar if sae["share"] is not None else None
            pairing = (None if partner < 0 else partner, pair, above)
            matches.append(Match(sae["name"], nearest, cosine, *pairing, bar, sae["null"]))
        return matches

    def neighbours(self, feature: int) -> list[Neighbour]:
        """The features with the nearest decoder rows, nearest first."""
        return self.feature(feature).neighbours

    def examples(self, feature: int) -> list[Example]:
        """Of each sign, positive first: top contexts by falling |activation|, then those of the
        quantile bands, strongest band first."""
        blob, pair_blob = self._lists(feature, "examples", "pairs")
        records = np.frombuffer(blob, schema.EXAMPLE)
        pairs = np.frombuffer(pair_blob, schema.PAIR)
        ends = np.cumsum(records["pairs"])
        wanted = json.dumps(np.unique(records["context"]).tolist())
        sql = (
            "select id, tokens, documents from context where id in (select value from json_each(?))"
        )
        contexts = {row[0]: row for row in self._ask(sql, wanted)}
        examples: list[Example] = []
        for record, end in zip(records.tolist(), ends.tolist(), strict=True):
            sign, band, context, position, value, copies, n_pairs = record
            if band == schema.MORE:
                continue
            _, ids, documents = contexts[context]
            words = spell(self.vocabulary.pieces(np.frombuffer(ids, "<i4").tolist()))
            dense_T = np.zeros(len(words), np.float32)
            mine = pairs[end - n_pairs : end]
            dense_T[mine["position"]] = mine["value"]
            with file.damage(self.path):
                owner = document(self._connection, documents, position)
            rank = _rank(examples, sign, band)
            place = (sign, band, rank, context, position, value, copies)
            examples.append(Example(*place, words, dense_T.tolist(), owner))
        return examples

    def places(self, feature: int) -> list[tuple[int, int, float]]:
        """Firings beyond the examples, whose contexts a cache still has: (context, position,
        value), strongest first; see `more.examples`."""
        records = np.frombuffer(self._lists(feature, "examples")[0], schema.EXAMPLE)
        records = records[records["band"] == schema.MORE]
        return [
            (context, position, value) for _, _, context, position, value, *_ in records.tolist()
        ]


def _rank(examples: Sequence[Example], sign: int, band: int) -> int:
    """The place of the next example of a band, behind those there are."""
    last = examples[-1] if examples else None
    return last.rank + 1 if last and (last.sign, last.band) == (sign, band) else 0


def _known(value: float) -> float | None:
    """A number, None for nan."""
    return None if np.isnan(value) else float(value)


def _bins(blob: bytes) -> list[Bin]:
    """The occupied bins, ascending."""
    bins = []
    for number, count in np.frombuffer(blob, schema.BAR).tolist():
        sign, step = (1, number) if number >= 0 else (-1, -1 - number)
        near, far = (
            sign * 2.0 ** (schema.LOWEST + at / schema.PER_OCTAVE) for at in (step, step + 1)
        )
        bins.append(Bin(min(near, far), max(near, far), count))
    return sorted(bins)
