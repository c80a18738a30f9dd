"""A run in a notebook: its parts are read when they are first asked for, its answers are
DataFrames, its features are drawn as the browser draws them. Shapes: N rows, D width."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelab import opening, prompting
from saelab.errors import UsageError
from saelab.features.search import WHERE
from saelab.runs import read

from ..browser import tables
from . import features, heads, measuring, texts
from .shown import Shown

if TYPE_CHECKING:
    import pandas

    from saelab.features.reader import FeatureIndex
    from saelab.prompting import Bench


def open(
    path: Path | str,
    model: Any = None,
    cache: Any = None,
    *,
    device: str = "cpu",
    dtype: str | None = None,
) -> "Run":
    """A run, opened for exploring. model, cache: a name or folder, or what is in memory, where it
    is not what the run's record names. device: where SAE and model go. dtype: of the model
    (default: as it filled the cache). Raises UsageError for a folder without an SAE, later for a
    model or cache that is gone or is another one than recorded.

    >>> run = saelab.open("runs/demo")
    >>> run.top(search="self")
    """
    return Run(path, model, cache, device=device, dtype=dtype)


class Run:
    """See `open`. It unpacks as well: `folder, sae, cache, model = saelab.open(path)`."""

    def __init__(
        self,
        path: Path | str,
        model: Any = None,
        cache: Any = None,
        *,
        device: str = "cpu",
        dtype: str | None = None,
    ) -> None:
        self._named = (model, cache)
        self._place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.folder, self.sae, _, _ = opening.open(path, needs=(), **self._place)

    @property
    def name(self) -> str:
        """What the run's folder is called."""
        return self.folder.path.resolve().name

    @property
    def cache(self) -> Any:
        """The activations it was trained on, a `Cache`. Raises UsageError where they are gone."""
        cache, why_none = self._cache
        if cache is None:
            raise UsageError(why_none)
        return cache

    @cached_property
    def _cache(self) -> tuple[Any, str]:
        """The cache; or none, and why, which texts can do without."""
        try:
            opened = opening.open(self.folder.path, *self._named, needs=("cache",), **self._place)
        except UsageError as error:
            if self._named[1] is not None:
                raise
            return None, str(error)
        return opened.cache, ""

    @cached_property
    def model(self) -> Any:
        """The model that it was trained at; None of a run on activations from elsewhere."""
        needs = opening.IF_ANY if self._cache[0] is not None else opening.IF_ANY[:1]
        options = {**self._place, "needs": needs}
        return opening.open(self.folder.path, self._named[0], self._cache[0], **options).model

    @cached_property
    def index(self) -> "FeatureIndex":
        """Its feature index. Raises UsageError where there is none yet."""
        return measuring.index(self.folder)

    @cached_property
    def bench(self) -> "Bench":
        """SAE and model ready for texts, as `saelab.prompting` takes them."""
        cache, why_none = self._cache
        opened = opening.Opened(self.folder, self.sae, cache, self.model)
        return prompting.bench(measuring.with_model(opened), why_none)

    def _other(self, run: "Run | Path | str") -> "Run":
        return run if isinstance(run, Run) else Run(run, **self._place)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.folder, self.sae, self.cache, self.model))

    def __repr__(self) -> str:
        return repr(self.folder).replace("RunFolder", "Run", 1)

    def _repr_html_(self) -> str:
        about = tables.about(self.name, read(self.folder.header))
        report = tables.report(read(self.folder.report), str(self.folder.path))
        return Shown(about + report, repr(self))._repr_html_()

    def top(
        self,
        n: int = 50,
        by: str = "interest",
        search: str = "",
        where: Sequence[str] = WHERE,
        whole: bool = False,
        **keep: Any,
    ) -> "pandas.DataFrame":
        """Features as a table, by falling `by` (interest, density, mean, max, cosine, feature), or
        those that a search finds, best first; with `stability`, where that was compared.

        where: what is searched, of tokens, contexts, outputs, labels. whole: a token must be the
        text, not only hold it. keep: fields of `saelab.features.listing.Keep`, such as density=(0,
        0.01), alive=True, sign=-1.

        >>> run.top(10, "density", alive=True)
        >>> run.top(search='" for"', where=["tokens"], whole=True)
        """
        if search:
            return features.found(self.folder, self.index, n, search, where, whole, keep)
        return features.listed(self.folder, self.index, n, by, keep)

    def feature(self, number: int) -> "features.View":
        """One feature: the browser's page of it; parts are DataFrames, as `.examples`."""
        return features.View(self.folder.path, self.index, number)

    def examples(self, number: int, n: int = 10) -> "pandas.DataFrame":
        """Contexts of a feature beyond those of its index; see `features.further`."""
        return features.further(self.sae, self.cache, self.index, number, n)

    def compare(self, other: "Run | Path | str") -> "pandas.DataFrame":
        """Which feature is which of another run's, one to one by the cosine of decoder rows, most
        alike first; `found` where that is above 0.7. Raises UsageError for one of another place.

        >>> run.compare("runs/demo-seed1").query("found")
        """
        other = self._other(other)
        if reason := self.sae.origin.elsewhere(other.sae.origin):
            raise UsageError(f"{other.name} cannot be compared with {self.name}: {reason}")
        return features.compared(self.sae, other.sae)

    def tokens(self, text: str) -> list[str]:
        """What the tokens of a text read, from what begins a context on."""
        return prompting.prompt(self.bench, text).texts

    def features(
        self, what: Any, by: str | None = None, n: int | None = None, **options: Any
    ) -> "pandas.DataFrame":
        """The features that fire on a text, or on activations [N, D] (tensor, array, DataFrame).

        Of a text one row for each token and feature: value; usual, over the feature's mean where it
        fires; effect on the loss in nats, by estimate. by: one of the three, by falling size of
        which the rows stand (default: by position). n: rows at most. options: `estimate` of
        the effect, "integrated" or "gradient"; see `prompting.read`.

        >>> run.features("import numpy as np", by="usual", n=10)
        """
        if isinstance(what, str):
            return texts.features(self.bench, what, by, n, **options)
        return texts.coded(self.sae, what, n)

    def trace(self, text: str, feature: int) -> "pandas.DataFrame":
        """The tokens of a text with a feature's value on each, 0 where it does not fire.

        >>> trace = run.trace("import numpy as np", 7)
        >>> saelab.show.tokens(trace.token, trace.value)
        """
        return texts.trace(self.bench, text, feature)

    def attribute(
        self, text: str, token: str | int | None = None, against: str | int | None = None
    ) -> "pandas.DataFrame":
        """Where the logit of the token after a text comes from: contributions of features, of what
        the SAE misses, of biases and of what passes by, largest first; they add up to the logit.

        token: its text or id (default: the most probable one); against: one whose logit is
        subtracted.

        >>> run.attribute("def f(self", "):").head(10)
        """
        return texts.attribution(self.bench, text, token, against)

    def steer(
        self,
        text: Any,
        feature: int | Mapping[int, float],
        value: float = 0.0,
        mode: str = "clamp",
        n: int = 30,
        **options: Any,
    ) -> "pandas.DataFrame":
        """A text continued by n tokens while a feature is clamped (mode: clamp, add, scale, ablate)
        beside controls of its length; of prompts (DataFrame, list, Path) the change of the metric.

        feature: its number, or several with their values. options: as of `prompting.steer`.

        >>> run.steer("import ", 17, 8.0)
        """
        values = feature if isinstance(feature, Mapping) else {feature: value}
        return texts.steered(self.bench, text, values, mode, n, **options)

    def heads(self, n_tokens: int = 20_000, residual: Any = None, seed: int = 0) -> "heads.Heads":
        """Which heads write the features of an attention SAE, and what kinds they are; see
        `heads.heads`. residual: a run over whose features strong firings are split."""
        other = self._other(residual).sae if residual else None
        return heads.heads(opening.Opened(*self), n_tokens, other, seed)

    def evaluate(
        self, n_tokens: int = 200_000, seed: int = 0, labels: Path | str | None = None
    ) -> "pandas.DataFrame":
        """As `saelab eval` does, into the run's report. labels: a CSV file; see `probes`."""
        measuring.evaluate(opening.Opened(*self), n_tokens, seed, labels)
        return self.report

    @property
    def probes(self) -> "pandas.DataFrame":
        """What a few latents tell of one's own labels; low, high and null are accuracy's."""
        return measuring.probes(self.folder)

    @property
    def report(self) -> "pandas.DataFrame":
        """Its report's metrics with intervals and nulls. Raises UsageError where there is none."""
        return measuring.report(self.folder)

    def build_index(
        self, n_tokens: int = 1_000_000, compare: Sequence["Run | Path | str"] = (), seed: int = 0
    ) -> "Run":
        """Build its index as `saelab index` does; compare: runs that features are looked up in."""
        named = [(one.name, one.sae) for one in map(self._other, compare)]
        measuring.build_index(opening.Opened(*self), others=named, n_tokens=n_tokens, seed=seed)
        for of_the_old_one in ("index", "bench"):
            self.__dict__.pop(of_the_old_one, None)
        return self
