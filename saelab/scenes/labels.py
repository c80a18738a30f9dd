"""What patches of scenes show, as a table.

Shapes: H x W pixels, K kinds of label, P patches, C concepts.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.errors import UsageError
from saelab.scenes.drawing import NOTHING, SIZE, scene
from saelab.scenes.vocabulary import CONCEPTS

PATCH = 8  # pixels a side, as the bundled vision model reads them


class PatchLabels(NamedTuple):
    """Concepts of the patches of some images."""

    owners: NDArray[np.int64]
    """[P]: number of the image of each patch, row by row of patches"""
    labels: NDArray[np.bool_]
    """[P, C]: whether the patch shows the concept"""
    concepts: tuple[str, ...]
    """name of each concept"""


def patch_labels(
    numbers: Iterable[int], patch: int = PATCH, seed: int = 0, size: int = SIZE
) -> PatchLabels:
    """The concepts that patches of those scenes show: of each kind the one of most of its pixels.

        owners_P, labels_PC, concepts = patch_labels(range(100))

    Raises UsageError where patches of that size do not make up an image.
    """
    numbers = list(numbers)
    kept = [of_pixels(scene(number, seed, size).labels, patch) for number in numbers]
    n_patches = (size // patch) ** 2
    whole = np.concatenate(kept) if kept else np.zeros((0, len(CONCEPTS)), bool)
    return PatchLabels(np.repeat(np.array(numbers, np.int64), n_patches), whole, CONCEPTS)


def of_pixels(
    labels_HWK: NDArray[np.int16], patch: int, n_concepts: int = len(CONCEPTS)
) -> NDArray[np.bool_]:
    """[P, C]: the label that most pixels of a patch have, of each kind; none where most have
    NOTHING. Ties go to the lower number."""
    height, width, n_kinds = labels_HWK.shape
    if height % patch or width % patch:
        raise UsageError(
            f"labels of {height} x {width} pixels are no whole patches of {patch}: give labels of "
            "the image's size, and images of whole patches"
        )
    shape = (height // patch, patch, width // patch, patch, n_kinds)
    cells = labels_HWK.reshape(shape).transpose(0, 2, 4, 1, 3).reshape(-1, patch * patch)
    # NOTHING counts as a label of its own, in front of the others.
    n_cells, n_labels = len(cells), n_concepts + 1
    place = np.arange(n_cells)[:, None] * n_labels + (cells - NOTHING)
    counts = np.bincount(place.ravel(), minlength=n_cells * n_labels).reshape(n_cells, n_labels)
    winners_PK = counts.argmax(1).reshape(-1, n_kinds) + NOTHING
    said_PC = np.zeros((len(winners_PK), n_concepts + 1), bool)
    np.put_along_axis(said_PC, winners_PK + 1, True, axis=1)
    return said_PC[:, 1:]
