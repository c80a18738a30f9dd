"""The images that a cache was made of, read again.

Shapes: C images, H x W pixels.
"""

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from saelab.activations.cache import Cache
from saelab.activations.from_images import IMAGES
from saelab.errors import UsageError
from saelab.pictures import Grid, opened, prepared_for
from saelab.pictures.sources import Labels


class Seen(NamedTuple):
    """An image as its model saw it."""

    pixels: NDArray[np.uint8]
    """[H, W, 3]"""
    labels: NDArray[np.int16] | None
    """[H, W, K]; None where it has none"""


def is_of_images(cache: Cache) -> bool:
    """Whether a cache's contexts are images."""
    return IMAGES in cache.manifest


def grid(cache: Cache) -> Grid:
    """Where its positions lie in the images."""
    held = cache.manifest[IMAGES]
    return Grid(*(held[name] for name in Grid._fields))


class Looking:
    """The images of a cache by the number of their document.

    looking = Looking(cache, model)
    looking.image(7).pixels
    """

    def __init__(self, cache: Cache, model: Any, images: str | None = None) -> None:
        """images: where they lie now (None: where they did). Raises UsageError where they are
        gone, and for a model that cuts images up otherwise."""
        self.cache, self.preparer = cache, prepared_for(model)
        held = grid(cache)
        if held != self.preparer.grid:
            raise UsageError(
                f"{cache.path} is of images in {held.rows} x {held.columns} patches of "
                f"{held.patch} pixels, this model's are {self.preparer.grid.rows} x "
                f"{self.preparer.grid.columns} of {self.preparer.grid.patch}: name the model that "
                "made it"
            )
        plan = cache.plan
        self.images = opened(images or plan.text, plan.text_field, plan.seed)
        self.names = cache.document_names()

    @property
    def labels(self) -> Labels | None:
        """What pixels are labelled with."""
        return self.images.labels

    @cached_property
    def _numbers(self) -> dict[str, int]:
        if self.images.name == "scenes":
            return {name: int(name.removeprefix("scene ")) for name in self.names}
        return {name: number for number, name in enumerate(self.images.names)}

    def _number(self, document: int) -> int:
        name = self.names[document]
        if name not in self._numbers:
            raise UsageError(f"{self.images.name} has no image {name}, which the cache is of")
        return self._numbers[name]

    def image(self, document: int) -> Seen:
        """An image with its labels. Raises UsageError where it is gone or cannot be decoded, and
        for labels of another size than its own."""
        number = self._number(document)
        said = self.images.labels_of(number)
        pixels = self.preparer.pixels(self.images.read(number))
        return Seen(pixels, None if said is None else self.preparer.labels(said))

    def inputs(self, documents_C: Tensor) -> dict[str, Tensor]:
        """What the model's forward takes for those documents."""
        numbers = map(self._number, documents_C.tolist())
        pixels = np.stack([self.preparer.pixels(self.images.read(one)) for one in numbers])
        return {"pixel_values": self.preparer.normal(pixels)}
