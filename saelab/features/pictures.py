"""Of an index of images: the pictures that examples are in, as their model saw them, with their
labels and the strongest features of every patch. Reading imports no torch.

Shapes: C contexts, T positions, H x W pixels, K kinds of label.
"""

import io
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.features.packing import pack, unpack
from saelab.features.picture import Grid, Picture
from saelab.features.spool import Spool

if TYPE_CHECKING:
    from saelab.code import Code

STRONGEST = 8  # features kept of each patch
HELD = np.dtype([("feature", "<i4"), ("value", "<f4")])
TABLE = "create table picture (context integer primary key, jpeg blob, labels blob, patches blob)"
QUALITY = 88  # of JPEG


class Pictures(NamedTuple):
    """Where an index gets its pictures."""

    grid: dict[str, int]
    """rows, columns, patch, prefix"""
    image: Callable[[int], Any]
    """of a document: `pixels` [H, W, 3] and `labels` [H, W, K] or None"""
    kinds: tuple[str, ...] = ()
    """what each label is of"""
    concepts: tuple[str, ...] = ()
    """name of each label"""


def strongest(code: "Code", n_contexts: int, counted_CT: NDArray) -> NDArray:
    """[C, T, STRONGEST]: the features of largest |value| of each position that counts, the
    strongest first, feature -1 where there are fewer."""
    rank_N = code.ranks().numpy()
    value_N = code.values.float().numpy()
    counted_N = counted_CT.reshape(-1)[code.tokens.numpy()]
    kept = np.flatnonzero((rank_N < STRONGEST) & (value_N != 0) & counted_N)
    held = np.zeros((code.n_tokens, STRONGEST), HELD)
    held["feature"] = -1
    place = code.tokens.numpy()[kept], rank_N[kept]
    held["feature"][place] = code.features.numpy()[kept]
    held["value"][place] = value_N[kept]
    return held.reshape(n_contexts, -1, STRONGEST)


class Patches:
    """What fires on the patches of images as they are read, on disk; then the table of those that
    examples are in."""

    def __init__(self, pictures: Pictures, folder: Path) -> None:
        self.pictures = pictures
        length = pictures.grid["prefix"] + pictures.grid["rows"] * pictures.grid["columns"]
        self.spool = Spool(folder / "patches", HELD, (length, STRONGEST))

    def add(self, code: "Code", counted_CT: NDArray) -> None:
        """The code of C whole contexts."""
        self.spool.append(strongest(code, len(counted_CT), counted_CT))

    def write(
        self, connection: sqlite3.Connection, documents_C: NDArray, summary: dict[str, Any]
    ) -> None:
        """The table, and in the summary `images`. documents_C: of every context."""
        connection.execute(TABLE)
        (*numbers,) = connection.execute("select id from context order by id")
        rows = (_row(self.pictures, number, documents_C, self.spool) for (number,) in numbers)
        connection.executemany("insert into picture values (?, ?, ?, ?)", rows)
        kinds, concepts = list(self.pictures.kinds), list(self.pictures.concepts)
        summary["images"] = {"grid": self.pictures.grid, "kinds": kinds, "concepts": concepts}


def _row(pictures: Pictures, number: int, documents_C: NDArray, patches: Spool) -> tuple:
    seen = pictures.image(int(documents_C[number]))
    labels = None if seen.labels is None else _packed(seen.labels)
    held = pack(patches.rows(number, number + 1).tobytes(), HELD.itemsize)
    return number, _jpeg(seen.pixels), labels, held


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def _packed(labels_HWK: NDArray[np.int16]) -> bytes:
    """A grey PNG, of 16 bits where labels need them, of the kinds one below the other, 0 where a
    pixel has no label."""
    from PIL import Image

    stacked = np.concatenate([*np.moveaxis(labels_HWK + 1, -1, 0)])
    file = io.BytesIO()
    held = np.uint8 if stacked.max(initial=0) < 256 else np.uint16
    Image.fromarray(stacked.astype(held)).save(file, "PNG")
    return file.getvalue()


def labels_of(packed: bytes, n_kinds: int) -> NDArray[np.int16]:
    """[H, W, K]: labels as `write` packs them, -1 where a pixel has none."""
    from PIL import Image

    stacked = np.asarray(Image.open(io.BytesIO(packed)), np.int16) - 1
    return np.stack(np.split(stacked, n_kinds), -1)


def read(ask: Callable[..., Iterable[tuple]], summary: dict, context: int) -> Picture | None:
    """The picture of a context; None where there is none."""
    if not (images := summary.get("images")):
        return None
    rows = [*ask("select jpeg, labels, patches from picture where context = ?", context)]
    if not rows:
        return None
    jpeg, labels, patches = rows[0]
    grid = Grid(**images["grid"])
    held = unpack(patches, HELD).reshape(-1, STRONGEST)
    features = [
        [(int(f), float(v)) for f, v in row.tolist() if f >= 0] for row in held[grid.prefix :]
    ]
    kinds, concepts = tuple(images["kinds"]), tuple(images["concepts"])
    said = None if labels is None else labels_of(labels, len(kinds))
    return Picture(context, jpeg, grid, features, said, kinds, concepts)
