"""Which features a list holds and in which order: what the address says of it, on the page of the
list and on the pages of its features, which walk it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

SCOPES = {
    "": "tokens and labels",
    "tokens": "tokens",
    "contexts": "contexts",
    "outputs": "output tokens",
    "labels": "labels and notes",
    "explanations": "explanations",
    "all": "everywhere",
}
PLACES = {
    "": ("tokens", "labels"),
    "all": ("tokens", "contexts", "outputs", "labels", "explanations"),
}
ONLY = {
    "": "all features",
    "labelled": "labelled",
    "starred": "starred",
    "found": "found in another SAE",
    "stable": "in every other seed",
    "unstable": "in no other seed",
}
ALIVE = {"": "all", "1": "fired", "0": "silent"}
SIGNS = {"": "either sign", "1": "some above 0", "-1": "some below 0"}
LIST = "list:"  # before the name of a list of the annotations
INTEREST, MATCH, STABLE = "interest", "match", "stable"
Box = tuple[float, float, float, float]


class Listing(NamedTuple):
    """A list of features; all of them by interest unless it says else."""

    q: str = ""
    """what is searched for"""
    scope: str = ""
    """where, one of SCOPES"""
    whole: bool = False
    """whether a token must be it, not only hold it"""
    sort: str = ""
    """a column; "": by how well it matches where something is searched, else by interest"""
    descending: bool = True
    low: float = 0.0
    """least density"""
    high: float = 1.0
    """greatest density"""
    alive: str = ""
    """one of ALIVE"""
    sign: str = ""
    """one of SIGNS"""
    only: str = ""
    """one of ONLY, or LIST and a name"""
    box: Box | None = None
    """on the map: from x, to x, from y, to y"""

    @property
    def places(self) -> tuple[str, ...]:
        """The names of the places that are searched."""
        return PLACES.get(self.scope, (self.scope,))

    @property
    def sorted_by(self) -> str:
        """The column that decides, MATCH included."""
        return self.sort or (MATCH if self.q else INTEREST)

    @property
    def filters(self) -> int:
        """How many filters are set."""
        return len(self.query().keys() & {"low", "high", "alive", "sign", "only", "box"})

    @property
    def asked(self) -> str:
        """The text to search for: one with blanks around it means them, as in quotes."""
        return self.q if '"' in self.q or self.q == self.q.strip() else f'"{self.q}"'

    def query(self) -> dict[str, str]:
        """What the address says of it; nothing of what is as usual."""
        said = {}
        for name, value in self._asdict().items():
            if value != Listing._field_defaults[name]:
                said[name] = _written(value)
        return said

    def changed(self, **fields: Any) -> "Listing":
        """The same list but for some fields."""
        return self._replace(**fields)


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{part:.4g}" for part in value)
    return str(int(value)) if isinstance(value, bool) else f"{value}"


def read(query: Mapping[str, str]) -> Listing:
    """The list that an address names; what cannot be meant is as usual."""
    get = query.get
    only = get("only", "")
    return Listing(
        q=get("q", "").strip("\n"),
        scope=get("scope", "") if get("scope") in SCOPES else "",
        whole=get("whole") == "1",
        sort=get("sort", ""),
        descending=get("descending", "1") != "0",
        low=_share(get("low", ""), 0.0),
        high=_share(get("high", ""), 1.0),
        alive=get("alive", "") if get("alive") in ALIVE else "",
        sign=get("sign", "") if get("sign") in SIGNS else "",
        only=only if only in ONLY or only.startswith(LIST) else "",
        box=_box(get("box", "")),
    )


def _share(word: str, usual: float) -> float:
    value = _number(word)
    return value if value is not None and 0 <= value <= 1 else usual


def _box(words: str) -> Box | None:
    numbers = [_number(word) for word in words.split(",")]
    known = [number for number in numbers if number is not None]
    return (known[0], known[1], known[2], known[3]) if len(known) == len(numbers) == 4 else None


def _number(word: str) -> float | None:
    """A finite number; None for what is none."""
    try:
        value = float(word)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
