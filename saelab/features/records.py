"""What reading an index returns. Shapes: T positions of a context."""

from collections.abc import Sequence
from typing import NamedTuple

from saelab.features.picture import Picture


class Row(NamedTuple):
    """One feature in the table."""

    feature: int
    """its number"""
    fired: int
    """tokens on which it fired"""
    density: float
    """share of the tokens"""
    mean: float
    """of |activation| over firing tokens"""
    max: float
    """the activation of largest size, with its sign"""
    positive: float
    """share of firings above 0"""
    interest: float
    """see `words.INTEREST`"""
    tokens: list[str]
    """strongest by total"""
    other: int | None
    """nearest feature of the first other SAE"""
    cosine: float | None
    """with the nearest"""
    partner_cosine: float | None
    """with its partner in a one-to-one matching, if it has one"""


class Hit(NamedTuple):
    """A feature that a search found."""

    feature: int
    """its number"""
    where: str
    """`tokens`, `contexts`, `outputs`, or the name of the texts it was found in"""
    text: str
    """the token, the phrase, or the text"""
    sign: int
    """of the activations it is about: 1 or -1"""
    selectivity: float
    """see `search.search` for what it is a share of"""
    coverage: float
    """likewise"""

    @property
    def score(self) -> float:
        """selectivity x coverage, by which hits are ranked."""
        return self.selectivity * self.coverage


class Table(NamedTuple):
    """A page of the table."""

    rows: list[Row]
    """those of the page"""
    total: int
    """how many there are in all"""


class Token(NamedTuple):
    """A strong token."""

    text: str
    """what it reads"""
    sign: int
    """of the activations: 1 or -1"""
    total: float
    """sum of those activations on it"""
    mean: float
    """of them over all its occurrences"""
    fired: int
    """occurrences on which the feature fired with that sign"""
    seen: int
    """occurrences in all"""
    selectivity: float
    """share of the feature's activation of that sign that lies on it"""
    coverage: float
    """fired / seen"""

    @property
    def score(self) -> float:
        """selectivity x coverage."""
        return self.selectivity * self.coverage


class Logit(NamedTuple):
    """A token that a feature makes likelier or less likely."""

    text: str
    """what it reads"""
    value: float
    """what one unit of the feature adds to its logit, before the final norm's scale"""


class Neighbour(NamedTuple):
    """Another feature of this SAE."""

    feature: int
    """its number"""
    cosine: float
    """of the decoder rows"""
    tokens: list[str]
    """its strongest"""


class CoFiring(NamedTuple):
    """Another feature that fires on the same tokens."""

    feature: int
    """its number"""
    both: int
    """tokens of the sample (`cofiring_tokens` of the summary) on which both fire"""
    jaccard: float
    """share of the tokens on which either fires"""
    pmi: float
    """bits: log2 of how many times more often than by chance"""
    tokens: list[str]
    """its strongest"""


class Match(NamedTuple):
    """What another SAE has of a feature."""

    name: str
    """of the other SAE"""
    nearest: int
    """its feature with the highest cosine, which several features may share"""
    cosine: float
    """with the nearest"""
    partner: int | None
    """its feature in a one-to-one matching; None if there is none left"""
    partner_cosine: float | None
    """with the partner"""
    found: bool | None
    """whether that |cosine| is above the threshold; None if the two are too wide to be matched"""
    threshold: float
    """of found"""
    null: float
    """expected cosine of the nearest of random directions"""


class Bin(NamedTuple):
    """A bar of the histogram."""

    low: float
    """least activation"""
    high: float
    """greatest activation"""
    fired: int
    """how many firings fell there"""


class Feature(NamedTuple):
    """Everything about one feature but its examples."""

    row: Row
    by_total: list[Token]
    """strongest tokens of each sign by total, positive ones first; [] without a tokenizer"""
    by_mean: list[Token]
    """likewise by mean"""
    promoted: list[Logit]
    """[] unless the decoder writes to the residual stream"""
    suppressed: list[Logit]
    neighbours: list[Neighbour]
    cofiring: list[CoFiring]
    matches: list[Match]
    histogram: list[Bin]
    """occupied bins, ascending; negative ones first"""
    heads: list[float]
    """norm of the decoder row's part per head, over the sum of such norms; [] unless attention's z
    is written"""
    hooks: Sequence[tuple[str, float]] = ()
    """(hook, norm of what the decoder row writes there over the sum of such norms) of each that a
    crosscoder writes to"""


class Example(NamedTuple):
    """A context with the feature's activations."""

    sign: int
    """of the activation: 1 or -1"""
    band: int
    """-1: top, else the quantile band of the firings of that sign, 0 the weakest; -2: read on
    demand"""
    rank: int
    """within the band, 0 the strongest"""
    context: int
    """number of the context"""
    position: int
    """of the firing: in a top context, its peak"""
    value: float
    """activation there"""
    copies: int
    """near-duplicates it stands for, itself included; of a top context, at least"""
    texts: list[str]
    """[T] the tokens as they read in a row: a character that several make up stands with the
    first, the others are empty"""
    activations: list[float]
    """[T] of that sign at every position"""
    document: str
    """that it comes from"""
    picture: Picture | None = None
    """the context's image, if it is one"""


class Passage(NamedTuple):
    """A place where a searched text stands."""

    context: int
    """number of the context"""
    document: str
    """that it comes from"""
    first: int
    """position of the first of the tokens"""
    texts: list[str]
    """the tokens from there on, as in `Example`"""
    matched: list[int]
    """those of them, by number, that are part of the text"""
    features: list[tuple[int, float]]
    """those with an example here behind the text, by falling |activation|, as (feature,
    activation)"""
