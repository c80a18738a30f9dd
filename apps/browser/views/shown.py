"""The text that a page shows, with what its sections need."""

from typing import TYPE_CHECKING, NamedTuple

from saelab.features.reader import FeatureIndex

from .. import asking
from ..model import Key

if TYPE_CHECKING:
    from saelab.analysis.prompts import Estimated
    from saelab.prompting import Reading


class Shown(NamedTuple):
    """A text that was read."""

    run: str
    """name of the run"""
    key: Key
    """of its loaded model"""
    text: str
    reading: "Reading"
    opened: FeatureIndex | None
    """the run's index; None without one that can be read"""
    estimate: "Estimated"
    """that effects are by"""

    @property
    def texts(self) -> list[str]:
        """What each token reads, position 0 included."""
        return self.reading.prompt.texts

    def known(self, features: list[int]) -> dict[int, list[str]]:
        """The tokens that features fire on most, by the index."""
        return asking.strongest_tokens(self.opened, tuple(dict.fromkeys(features)))
