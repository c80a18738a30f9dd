"""Reading a feature index: everything the app, the command line and notebooks ask of it. Imports no
torch.

Shapes: F features, T positions of a context.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saelab.features import file, listing, one, pictures
from saelab.features import search as searching
from saelab.features.listing import Beside, Keep, Map
from saelab.features.packing import unpack
from saelab.features.picture import Picture
from saelab.features.records import (
    Example,
    Feature,
    Hit,
    Match,
    Passage,
    Row,
    Table,
)
from saelab.features.schema import ID
from saelab.features.search import WHERE, Library, Texts
from saelab.features.stored import Stored
from saelab.features.vocabulary import Vocabulary

SORTS = listing.SORTS
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
        self._stored = Stored(self.path)
        self.summary: dict[str, Any] = self._stored.summary

    def close(self) -> None:
        """Close the file."""
        self._stored.connection.close()

    def __enter__(self) -> "FeatureIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_features(self) -> int:
        """F."""
        return self.summary["n_features"]

    # --- lists -----------------------------------------------------------------------------------

    @property
    def arrays(self) -> dict[str, NDArray]:
        """Columns [F] and rows [F, K] by name; see `Stored.arrays`."""
        return self._stored.arrays

    @property
    def vocabulary(self) -> Vocabulary:
        """What the tokens read."""
        return self._stored.vocabulary

    def order(self, sort: str = "interest", descending: bool = True, keep: Keep = ALL) -> NDArray:
        """Numbers of the features that are kept, in the order of a list; see `listing.order`."""
        return listing.order(self.arrays, sort, descending, keep)

    def beside(self, feature: int, order: NDArray) -> Beside:
        """Who stands before and behind a feature in a list."""
        return listing.beside(feature, order)

    def rows(self, numbers: Iterable[int]) -> list[Row]:
        """What a list says of features, in that order."""
        return [self._stored.row(int(number)) for number in numbers]

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
            return searching.search(self._library(keep), query, where, whole, texts or {})

    def tokens(self, query: str, whole: bool = False) -> list[str]:
        """Texts of the tokens that hold a query, most frequent first."""
        return [self.vocabulary.text(token) for token in self.vocabulary.matching(query, whole)]

    def passages(self, query: str, limit: int = 20) -> list[Passage]:
        """Places in the corpus where a query stands: see `search.passages`."""
        with file.damage(self.path):
            return searching.passages(self._library(ALL), query, limit)

    def _library(self, keep: Keep) -> Library:
        kept_F = listing.kept_F(self.arrays, keep)
        examples_F = self.arrays["examples"]
        return Library(self._stored.connection, self.vocabulary, examples_F, kept_F)

    # --- one feature -----------------------------------------------------------------------------

    def feature(self, feature: int) -> Feature:
        """Everything about a feature but its examples. Raises UsageError for a number the SAE does
        not have."""
        with file.damage(self.path):
            return one.feature(self._stored, feature)

    def examples(self, feature: int) -> list[Example]:
        """Of each sign, positive first: top contexts by falling |activation|, then those of the
        quantile bands, strongest band first."""
        with file.damage(self.path):
            return one.examples(self._stored, feature)

    def places(self, feature: int) -> list[tuple[int, int, float]]:
        """Firings beyond the examples, whose contexts a cache still has: (context, position,
        value); see `more.examples`."""
        return one.places(self._stored, feature)

    def picture(self, context: int) -> Picture | None:
        """The image of a context that an example is of; None where contexts are no images."""
        with file.damage(self.path):
            return pictures.read(self._stored.ask, self.summary, context)

    def ids(self, context: int) -> list[int]:
        """Token ids of a context that an example is of, position 0 included."""
        ((blob,),) = self._stored.ask("select tokens from context where id = ?", context)
        with file.damage(self.path):
            return unpack(blob, ID).tolist()

    def matches(self, feature: int) -> list[Match]:
        """What every other SAE that the index was built with has of a feature."""
        return one.matches(self._stored, feature)
