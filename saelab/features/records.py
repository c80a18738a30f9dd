"""What reading an index returns. Shapes: T positions of a context."""

from typing import NamedTuple


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
    tokens: list[str]
    """strongest by total"""
    other: int | None
    """nearest feature of the first other SAE"""
    cosine: float | None
    """with the nearest"""
    partner_cosine: float | None
    """with its partner in a one-to-one matching, if it has one"""
    hit: "Hit | None"
    """what a search found, else None"""


class Hit(NamedTuple):
    """What a search found of a feature."""

    token: bool
    """whether one of its strong tokens matches"""
    examples: int
    """how many of its examples match"""


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
    total: float
    """sum of activations on it"""
    mean: float
    """over all its occurrences"""
    fired: int
    """occurrences on which the feature fired"""
    seen: int
    """occurrences in all"""


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
    by_mean: list[Token]
    promoted: list[Logit]
    suppressed: list[Logit]
    neighbours: list[Neighbour]
    matches: list[Match]
    histogram: list[Bin]


class Example(NamedTuple):
    """A context with the feature's activations."""

    band: int
    """-1: top, else the quantile band, 0 the weakest"""
    rank: int
    """within the band"""
    context: int
    """number of the context"""
    position: int
    """of the peak"""
    peak: float
    """activation there"""
    texts: list[str]
    """[T] the tokens as they read in a row: a character that several make up stands with the
    first, the others are empty"""
    activations: list[float]
    """[T] at every position"""
    document: str
    """that it comes from"""


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
    """those with an example here whose window holds it, by falling |peak|, as (feature, peak)"""
