"""What reading an index returns. Shapes: T positions of a context."""

from typing import NamedTuple


class Row(NamedTuple):
    """One feature in the table. max keeps its sign; mean is of |activation| over firing tokens;
    positive: share of them above 0.

    tokens: strongest by total; other, cosine: nearest feature of the first other SAE;
    partner_cosine: that with its partner in a one-to-one matching, if it has one; hit: what a
    search found, else None.
    """

    feature: int
    fired: int
    density: float
    mean: float
    max: float
    positive: float
    tokens: list[str]
    other: int | None
    cosine: float | None
    partner_cosine: float | None
    hit: "Hit | None"


class Hit(NamedTuple):
    """What a search found of a feature: whether one of its strong tokens matches, and how many of
    its examples do."""

    token: bool
    examples: int


class Table(NamedTuple):
    """A page of rows, and how many there are in all."""

    rows: list[Row]
    total: int


class Token(NamedTuple):
    """A strong token. total: sum of activations on it; mean: over all its occurrences; fired of
    seen occurrences."""

    text: str
    total: float
    mean: float
    fired: int
    seen: int


class Logit(NamedTuple):
    """A token and what one unit of the feature adds to its logit, before the final norm's scale."""

    text: str
    value: float


class Neighbour(NamedTuple):
    """Another feature of this SAE, its decoder cosine and strongest tokens."""

    feature: int
    cosine: float
    tokens: list[str]


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
    """low to high activation, and how many firings fell there."""

    low: float
    high: float
    fired: int


class Feature(NamedTuple):
    """Everything about one feature but its examples."""

    row: Row
    by_total: list[Token]
    by_mean: list[Token]
    promoted: list[Logit]
    suppressed: list[Logit]
    neighbours: list[Neighbour]
    matches: list[Match]
    histogram: list[Bin]


class Example(NamedTuple):
    """A context with the feature's activation at every position [T]; band -1: top, else the
    quantile band, 0 the weakest."""

    band: int
    rank: int
    context: int
    position: int
    peak: float
    texts: list[str]
    activations: list[float]
    document: str


class Passage(NamedTuple):
    """A place where a searched text stands: the tokens from `first` on, those numbered by `matched`
    among them part of the text.

    features: those with an example here whose window holds it, by falling |peak|, as (feature,
    peak).
    """

    context: int
    document: str
    first: int
    texts: list[str]
    matched: list[int]
    features: list[tuple[int, float]]
