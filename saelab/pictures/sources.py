"""Where images come from: a folder, a file of them, a hub dataset, or the scenes drawn by code.

In a folder laid out as ADEChallengeData2016, `images/` and `annotations/` with a .png of each
image's name, pixels have labels: class 0 is none, and `objectInfo150.txt` names the others; classes
without a name, such as the 255 of void pixels, are none.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab import scenes
from saelab.errors import UsageError
from saelab.pictures.reading import Undecodable, decoded, is_image, labels_of

SCENES = "scenes"
NOTHING = scenes.NOTHING  # the label of a pixel without one
DAMAGED = (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)  # what reading raises


class Labels(NamedTuple):
    """What the pixels of images are labelled with."""

    kinds: tuple[str, ...]
    """what each label is of, such as `object` and `material`"""
    concepts: tuple[str, ...]
    """name of each label by its number"""


class Images(NamedTuple):
    """Images that are read one at a time.

    images = opened("photographs")
    images.names[0], images.read(0).size
    """

    name: str
    """where they are from"""
    names: Sequence[str]
    """of each image"""
    data: Callable[[int], Any]
    """the bytes, or the PIL image, of a number"""
    pixel_labels: Callable[[int], NDArray[np.int16] | None]
    """[H, W, K] of a number, NOTHING where a pixel has none; None where there are no labels"""
    labels: Labels | None = None

    def read(self, number: int) -> Any:
        """A PIL image, RGB. Raises Undecodable, also for bytes that cannot be had."""
        name = self.names[number]
        try:
            data = self.data(number)
        except DAMAGED as error:
            raise Undecodable(f"{name} cannot be read: {error}") from None
        return decoded(data, name)

    def labels_of(self, number: int) -> NDArray[np.int16] | None:
        """[H, W, K]: its pixels' labels. Raises UsageError for those of another size than the
        image's."""
        said = self.pixel_labels(number)
        if said is None:
            return None
        width, height = self.read(number).size
        if said.shape[:2] != (height, width):
            raise UsageError(
                f"the labels of {self.names[number]} are {said.shape[1]} x {said.shape[0]} pixels, "
                f"the image {width} x {height}: give labels of the image's size"
            )
        return said


def opened(name: str, column: str = "", seed: int = 0, n: int = 1 << 31) -> Images:
    """The images of a name: `scenes`, a folder, a file (one image, .zip, .parquet), what
    `save_to_disk` wrote, or a hub dataset. column: that holds them in a table. seed: of the scenes.
    n: of a table or dataset at most so many rows are read.

    Raises UsageError where there are none.
    """
    path = Path(name).expanduser()
    if name == SCENES:
        found = _scenes(seed, min(n, 1 << 31))
    elif path.is_dir() and not (path / "dataset_info.json").is_file():
        found = _folder(path)
    elif path.suffix.lower() == ".zip" and path.is_file():
        found = _zip(path)
    elif path.is_file() and is_image(name):
        found = Images(name, [path.name], lambda _: path.read_bytes(), _unlabelled)
    else:
        from saelab.pictures.tables import rows

        found = Images(name, *rows(name, path, column, n), _unlabelled)
    if not len(found.names):
        raise UsageError(f"{name} holds no images: .png, .jpg, .webp, .bmp, .gif or .tif are right")
    return found


def _unlabelled(number: int) -> None:
    return None


def _scenes(seed: int, n: int) -> Images:
    @_remembered
    def drawn(number: int) -> scenes.Scene:
        return scenes.scene(number, seed)

    def data(number: int) -> Any:
        from PIL import Image

        return Image.fromarray(drawn(number).image)

    names = _Numbered(n)
    labels = Labels(scenes.KINDS, scenes.CONCEPTS)
    return Images(SCENES, names, data, lambda number: drawn(number).labels, labels)


def _remembered(make: Callable[[int], Any]) -> Callable[[int], Any]:
    """The last one made is kept: picture and labels are asked for one after the other."""
    held: dict[int, Any] = {}

    def get(number: int) -> Any:
        if number not in held:
            held.clear()
            held[number] = make(number)
        return held[number]

    return get


class _Numbered(Sequence):
    """Names of scenes, as many as there are."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, number: Any) -> Any:
        return f"scene {number}"

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(self.n))

    def index(self, value: str, *_: Any) -> int:
        return int(value.removeprefix("scene "))


def _folder(path: Path) -> Images:
    """Every image below a folder, by its path there."""
    root = path / "images" if (path / "annotations").is_dir() else path
    files = sorted(file for file in root.rglob("*") if is_image(file.name) and file.is_file())
    names = [file.relative_to(root).as_posix() for file in files]
    said: Callable[[int], Any] = _unlabelled
    labels = None
    if root != path:
        concepts = tuple(_classes(path))
        said = partial(_annotated, path / "annotations", names, len(concepts))
        labels = Labels(("class",), concepts)
    return Images(str(path), names, lambda number: files[number].read_bytes(), said, labels)


def _annotated(
    folder: Path, names: Sequence[str], n_classes: int, number: int
) -> NDArray[np.int16] | None:
    """[H, W, 1]: the classes of an image in ADEChallengeData2016's layout, from 0."""
    file = (folder / names[number]).with_suffix(".png")
    if not file.is_file():
        return None
    classes_HW = labels_of(file.read_bytes(), str(file)).astype(np.int32)
    known_HW = (classes_HW > 0) & (classes_HW <= n_classes)
    return np.where(known_HW, classes_HW - 1, NOTHING).astype(np.int16)[..., None]


def _classes(path: Path) -> list[str]:
    """Names of the classes, from 1; numbers where no file says them."""
    info = path / "objectInfo150.txt"
    if not info.is_file():
        return [f"class {number + 1}" for number in range(150)]
    lines = info.read_text().splitlines()[1:]
    return [line.split("\t")[-1].strip() for line in lines if line.strip()]


def _zip(path: Path) -> Images:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise UsageError(f"{path} is no zip file: {error}") from None
    names = sorted(name for name in archive.namelist() if is_image(name))
    return Images(str(path), names, lambda number: archive.read(names[number]), _unlabelled)
