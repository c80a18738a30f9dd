"""Which numbers can be meant: ranges as annotations of a dataclass's fields, and the one check of
them.

    @dataclass
    class Args:
        tokens: Count = 1000
        rate: Positive | None = None

    list(outside(Args(tokens=0)))  # ['tokens=0: give a whole number of at least 1']
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cache
from math import inf
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
LARGEST = 2**63 - 1  # what a tensor's index holds
FACTORS = {"k": 10**3, "m": 10**6, "b": 10**9}
SIZES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}


@dataclass(frozen=True)
class Range:
    """Numbers from low to high; `open` ends do not belong to it. NaN and infinity are in none."""

    low: float
    high: float = inf
    open_low: bool = False
    open_high: bool = False
    whole: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low or (value == self.low and not self.open_low)
        below = value < self.high or (value == self.high and not self.open_high)
        return above and below and abs(value) < inf

    def __str__(self) -> str:
        what = "a whole number" if self.whole else "a number"
        if self.high in (inf, LARGEST):
            return f"{what} {'above' if self.open_low else 'of at least'} {self.low}"
        if self.open_low and self.open_high:
            return f"{what} between {self.low} and {self.high}"
        if self.open_low:
            return f"{what} above {self.low}, at most {self.high}"
        return f"{what} from {self.low} to {'below ' if self.open_high else ''}{self.high}"


def _whole(low: int, high: int = LARGEST) -> Range:
    return Range(low, high, whole=True)


Count = Annotated[int, _whole(1)]
Several = Annotated[int, _whole(2)]
OrNone = Annotated[int, _whole(0)]  # a count whose 0 means that there is none
Seed = Annotated[int, _whole(0, 2**32 - 2)]  # what every generator takes, and the next seed too
Port = Annotated[int, _whole(1, 65535)]
Positive = Annotated[float, Range(0, open_low=True)]
Weight = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Portion = Annotated[float, Range(0, 1, open_low=True)]  # a share that is not nothing
Part = Annotated[float, Range(0, 1, open_high=True)]  # a share that is less than the whole
Decay = Annotated[float, Range(0, 1, open_low=True, open_high=True)]


def number(text: str, suffixes: bool = True) -> int:
    """The whole number that a text spells: 2000000, 2e6 or, with suffixes, 2M or 1.5k. Raises
    ValueError for another text, and for a number that no tensor is long enough for.

    >>> number("1.5k")
    1500
    """
    factor = FACTORS.get(text[-1:].lower(), 1) if suffixes else 1
    like = "2000000, 500k or 2M" if suffixes else "2000000 or 2e6"
    try:
        value = Decimal(text[:-1] if factor > 1 else text) * factor
    except ArithmeticError:
        raise ValueError(f"{text!r} is no whole number such as {like}") from None
    if not value.is_finite() or abs(value) > LARGEST or value != int(value):
        raise ValueError(f"{text!r} is no whole number such as {like}")
    return int(value)


class Bytes(int):
    """A number of bytes."""

    @classmethod
    def read(cls, text: str) -> "Bytes":
        """What a text spells: 2GB, 1.5 TB, or a number of bytes as `number` reads it. Raises
        ValueError for another text.

        >>> Bytes.read("1.5GB")
        1500000000
        """
        factor = SIZES.get(text[-2:].lower(), 0)
        if not factor:
            return cls(number(text))
        try:
            return cls(number(str(Decimal(text[:-2].strip()) * factor), suffixes=False))
        except (ArithmeticError, ValueError):
            raise ValueError(f"{text!r} is no size such as 500MB, 2GB or 1.5TB") from None


def fits(hint: Any, value: Any) -> bool:
    """Whether a value, such as JSON gives it, is of a type: no bool is a number, and a number lies
    in its range."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return fits(parts[0], value) and all(value in one for one in ranges(hint))
    if origin in (Union, UnionType):
        return any(fits(part, value) for part in parts)
    if origin is Literal or hint is Any:
        return hint is Any or any(value == part for part in parts)
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return all(fits(parts[0], key) and fits(parts[1], one) for key, one in value.items())
    return isinstance(value, origin or hint)


def strict(values: T) -> T:
    """A dataclass whose fields hold what their types say. Raises ValueError naming one that does
    not."""
    for name, hint in hints(type(values)).items():
        if not fits(hint, getattr(values, name)):
            raise ValueError(f"{name}={getattr(values, name)!r:.80}")
    return values


def ranges(hint: Any) -> Iterator[Range]:
    """The ranges anywhere in a type: `Count`, `Count | None`, `tuple[Count, ...]`."""
    for part in get_args(hint):
        if isinstance(part, Range):
            yield part
        yield from ranges(part)


@cache
def hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, annotations included."""
    every = get_type_hints(kind, include_extras=True)
    return {field.name: every[field.name] for field in fields(kind)}


def outside(values: Any) -> Iterator[str]:
    """For each field of a dataclass that holds a number outside its range, one sentence: what it
    is, and what would be right."""
    for name, hint in hints(type(values)).items():
        value = getattr(values, name)
        several = value if isinstance(value, tuple) else (value,)
        for allowed in ranges(hint):
            for one in several:
                if one is not None and one not in allowed:
                    yield f"{name}={one}: give {allowed}"
