"""Features of an index as DataFrames, and one feature as the browser draws it."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelab.errors import UsageError
from saelab.features import stable
from saelab.features.annotations import Annotations, identity
from saelab.features.listing import Keep
from saelab.features.records import Row
from saelab.runs import RunFolder

from ..browser import addresses
from ..browser.exports import sections, subject
from ..browser.html import Markup
from .shown import Shown, frame

if TYPE_CHECKING:
    import pandas

    from saelab.features.reader import FeatureIndex
    from saelab.sae import SAE


def listed(
    folder: RunFolder, index: "FeatureIndex", n: int, by: str, kept: Mapping[str, Any]
) -> "pandas.DataFrame":
    """The first n features of an order; see `Run.top`."""
    rows = index.table(by, by != "feature", _keep(kept), n).rows
    return _table(rows, _labels(folder, index), **_stability(folder, index, rows))


def found(
    folder: RunFolder,
    index: "FeatureIndex",
    n: int,
    search: str,
    where: Sequence[str],
    whole: bool,
    kept: Mapping[str, Any],
) -> "pandas.DataFrame":
    """The first n features of a search; see `Run.top`."""
    labels = _labels(folder, index)
    hits = index.search(search, where, whole, {"labels": labels}, _keep(kept))[:n]
    about = {name: [getattr(hit, name) for hit in hits] for name in ("score", "where", "text")}
    rows = index.rows([hit.feature for hit in hits])
    return _table(rows, labels, **about, **_stability(folder, index, rows))


def _stability(folder: RunFolder, index: "FeatureIndex", rows: Sequence[Row]) -> dict[str, list]:
    """In which share of the other seeds each feature comes again: by either, by writing alike, by
    firing alike; nothing where `saelab compare --stability` has not told it of this SAE."""
    known = stable.read(folder.stability, folder.sae_digest(), index.n_features)
    if known is None:
        return {}
    shares = {"stability": known.share, **{by: known.columns[by] for by in ("cosine", "cofiring")}}
    named = {"stability": "stability", "cosine": "writes_alike", "cofiring": "fires_alike"}
    return {
        named[by]: [float(share_F[row.feature]) for row in rows] for by, share_F in shares.items()
    }


def _table(rows: Sequence[Row], labels: Mapping[int, str], **about: list) -> "pandas.DataFrame":
    """Rows with what people call them and what a search says of them in front."""
    made = frame(rows, like=Row)
    made = made.assign(label=[labels.get(row.feature, "") for row in rows], **about)
    first = ["feature", "label", "tokens", *about]
    return made.reindex(columns=[*first, *(name for name in made if name not in first)])


def _labels(folder: RunFolder, index: "FeatureIndex") -> dict[int, str]:
    return Annotations(folder.annotations, identity(index.summary), index.n_features).labels()


def _keep(kept: Mapping[str, Any]) -> Keep:
    if unknown := [name for name in kept if name not in Keep._fields]:
        raise UsageError(f"no filter {unknown[0]!r}; there are {', '.join(Keep._fields)}")
    return Keep(**kept)


def compared(one: "SAE", other: "SAE") -> "pandas.DataFrame":
    """See `Run.compare`."""
    from saelab import matching

    mine, theirs = one.W_dec.detach(), other.W_dec.detach()
    pairs = matching.partners(mine, theirs, signed=one.sparsify.signed)
    order = pairs.cosines.abs().argsort(descending=True, stable=True)
    columns = {"feature": pairs.rows, "other": pairs.columns, "cosine": pairs.cosines}
    made = frame(None, **{name: column[order].numpy() for name, column in columns.items()})
    made["found"] = made["cosine"].abs() > matching.FOUND
    return made


class View:
    """One feature. A notebook displays it as the browser's page of it."""

    def __init__(self, folder: Path, index: "FeatureIndex", number: int) -> None:
        self.number, self.about = number, index.feature(number)
        self._folder, self._index = folder, index

    def __repr__(self) -> str:
        row = self.about.row
        words = " ".join(map(repr, row.tokens))
        return f"feature {self.number}: fires on {row.density:.2%} of tokens, {words}"

    def _repr_html_(self) -> str:
        return self._shown._repr_html_()

    def save(self, path: Path | str) -> None:
        """Write it as an HTML file by itself."""
        self._shown.save(path)

    @cached_property
    def _shown(self) -> Shown:
        return Shown(self.body, repr(self))

    @cached_property
    def body(self) -> Markup:
        """What is displayed."""
        with addresses.addressed(lambda *_: None):  # a notebook has no pages to go to
            return sections.feature(subject.open(self._folder), self.number)

    @property
    def examples(self) -> "pandas.DataFrame":
        """Its contexts: where it fires, how strongly, and their tokens."""
        return frame(self._index.examples(self.number))

    @property
    def tokens(self) -> "pandas.DataFrame":
        """Its strongest tokens by total activation."""
        return frame(self.about.by_total)

    @property
    def outputs(self) -> "pandas.DataFrame":
        """The output tokens that it raises most, then those that it lowers most."""
        return frame([*self.about.promoted, *self.about.suppressed])

    @property
    def neighbours(self) -> "pandas.DataFrame":
        """The features with the nearest decoder rows."""
        return frame(self.about.neighbours)


def further(sae: Any, cache: Any, index: "FeatureIndex", number: int, n: int) -> "pandas.DataFrame":
    """Contexts in which a feature fires and which its index does not hold, read from the cache that
    it was made of, strongest first. Raises UsageError for another cache.

    >>> run.examples(7, n=20)
    """
    from saelab.features import more

    return frame(more.examples(sae, cache, index, number, n))
