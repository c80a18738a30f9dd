"""What the reading of a text goes on from when a capture is resumed: a file beside its shards, for
as long as it is unfinished.

It is written behind the line of the shard that it belongs to. Where it is one shard behind, that
one is read once more.
"""

import base64
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab import digests
from saelab.activations import disk
from saelab.activations.lines import REMEDY
from saelab.activations.source import Piece, Resume
from saelab.errors import FailedRun
from saelab.files import meant, read_object, write_json

FILE = "reading.json"
SCHEMA = "saelab/reading/1"
COLUMNS = {"tokens": "<i4", "owners": "<i4", "numbers": "<i8", "counted": "|b1"}


class From(NamedTuple):
    """Where a capture goes on."""

    n_shards: int
    """how many shards are made and need not be read again"""
    resume: Resume | None
    """what the next one is read from; None: the text's beginning"""


def save(folder: Path, n_shards: int, resume: Resume) -> None:
    """Write what the contexts behind the first n_shards shards are read from."""
    waiting = [_packed(piece) for piece in resume.waiting]
    fields = {"schema": SCHEMA, "shards": n_shards, "state": resume.state, "waiting": waiting}
    size = sum(column.nbytes for piece in resume.waiting for column in piece.columns)
    with disk.room(folder / FILE, size):
        write_json(folder / FILE, fields)


def load(folder: Path, n_held: int) -> From:
    """Where the capture in a folder goes on that holds n_held shards: at the beginning where
    nothing says more. Raises FailedRun for a damaged file."""
    path = folder / FILE
    if not path.is_file():
        return From(0, None)
    fields = read_object(path)
    if digests.is_right(fields) is not True:
        raise FailedRun(f"{path} was altered: it has not the SHA-256 that it holds; {REMEDY}")
    with meant(path, REMEDY):
        if fields["schema"] != SCHEMA or fields["shards"] > n_held:
            raise ValueError(f"it is of {fields['shards']} shards, there are {n_held}")
        waiting = [_unpacked(piece) for piece in fields["waiting"]]
        return From(fields["shards"], Resume(fields["state"], waiting))


def remove(folder: Path) -> None:
    """Nothing goes on any more."""
    (folder / FILE).unlink(missing_ok=True)


def _packed(piece: Piece) -> dict[str, Any]:
    columns = {name: _text(getattr(piece, name), kind) for name, kind in COLUMNS.items()}
    return {"split": piece.split, "shape": list(piece.tokens.shape), **columns}


def _text(column: Tensor, kind: str) -> str:
    return base64.b64encode(column.numpy().astype(kind).tobytes()).decode()


def _unpacked(fields: dict[str, Any]) -> Piece:
    n_contexts, length = fields["shape"]
    columns = {}
    for name, kind in COLUMNS.items():
        flat = np.frombuffer(base64.b64decode(fields[name]), kind)
        column = torch.from_numpy(flat.astype(bool if name == "counted" else np.int64))
        columns[name] = column if name == "numbers" else column.view(n_contexts, length)
    return Piece(fields["split"], **columns)
