"""A number as it is stated: with its 95% interval, and with what chance gives."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Estimate(NamedTuple):
    """A stated number. None stands for what is not known, NaN for 0 / 0.

    >>> Estimate(0.2, 0.1, 0.3).excludes_zero
    True
    """

    value: float | None
    """what was measured"""
    low: float | None = None
    """lower bound of the 95% interval"""
    high: float | None = None
    """upper bound of the 95% interval"""
    null: float | None = None
    """what chance, or knowing nothing, gives"""

    def as_dict(self) -> dict[str, float | None]:
        """The fields of every document's estimates (schemas/estimate.json); None for NaN."""
        fields = self._asdict().items()
        return {name: None if number != number else number for name, number in fields}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Estimate":
        """An estimate as a document holds it, perhaps among other fields."""
        return cls(*(fields.get(name) for name in cls._fields))

    def above(self, bound: float) -> bool:
        """Whether the interval lies wholly above a bound; False without an interval."""
        return self.low is not None and self.low > bound

    def below(self, bound: float) -> bool:
        """Whether the interval lies wholly below a bound; False without an interval."""
        return self.high is not None and self.high < bound

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies wholly on one side of 0: only then is a difference one."""
        return self.above(0) or self.below(0)

    def cut(self, lowest: float, highest: float) -> "Estimate":
        """The same with its interval cut to what the number can be."""
        low, high = (
            None if bound is None else min(max(bound, lowest), highest)
            for bound in (self.low, self.high)
        )
        return self._replace(low=low, high=high)
