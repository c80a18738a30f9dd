"""Images: where they come from, read one at a time, and as a vision model sees them."""

from saelab.pictures.preparing import Grid, Preparer, prepared_for
from saelab.pictures.reading import Undecodable, decoded
from saelab.pictures.sources import Images, opened

__all__ = [
    "Grid",
    "Images",
    "Preparer",
    "Undecodable",
    "decoded",
    "opened",
    "prepared_for",
]
