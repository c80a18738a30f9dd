"""A checkpoint of a dictionary whose features several ranks hold: a folder of safetensors, read by
any number of ranks.

`shard-R-*.safetensors`, written by torch.distributed.checkpoint: the rows of rank R. `common.
safetensors`: what all ranks hold alike. `checkpoint.json`, written last: the SHA-256 of each file.
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from saelab import digests, ranks
from saelab.errors import FailedRun
from saelab.files import read_object, write_json

from .layout import OF_FEATURES

SCHEMA = "saelab/checkpoint/1"
HEADER, COMMON = "checkpoint.json", "common.safetensors"


def of_features(name: str) -> bool:
    """Whether a tensor of a run's state, `sae.W_enc` or `adam.W_enc.first`, has a row per
    feature."""
    return "." in name and name.split(".")[1] in OF_FEATURES


def write(place: Path | None, tensors: dict[str, Tensor], n_features: int) -> None:
    """Write this rank's part of a checkpoint into a new folder, whose place rank 0 gives."""
    import torch.distributed as dist
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    folder = Path(ranks.at_first(lambda: _made(place)))
    mine = {name: value for name, value in tensors.items() if of_features(name)}
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    with _told(f"write its part of {folder.name}"):
        save(_sharded(mine, n_features), storage_writer=writer)
    (file,) = folder.glob(f"shard-{ranks.rank() + 1:05d}-*.safetensors")
    entries: list[Any] = [None] * ranks.world()
    dist.all_gather_object(entries, digests.entry(file))
    if ranks.rank() == 0:
        common = {name: value for name, value in tensors.items() if name not in mine}
        save_file(common, folder / COMMON)
        files = [*entries, digests.entry(folder / COMMON)]
        header = {"schema": SCHEMA, "features": n_features, "ranks": ranks.world()}
        write_json(folder / HEADER, {**header, "files": files})


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Within the block what fails on some rank is the same FailedRun on all."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        number, failure = min(error.failures.items())
        why = " ".join(str(failure[0]).split())[:300]
        raise FailedRun(f"rank {number} could not {what}: {why}") from None


def _made(place: Path | None) -> str:
    assert place is not None
    place.mkdir()
    return str(place)


def _sharded(tensors: dict[str, Tensor], n_features: int) -> dict[str, Any]:
    """This rank's rows as parts of tensors with rows for all features."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    mesh = init_device_mesh("cpu", (ranks.world(),))

    def of(rows: Tensor) -> DTensor:
        shape = torch.Size((n_features, *rows.shape[1:]))
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(rows, mesh, [Shard(0)], shape=shape, stride=stride)

    return {name: of(value) for name, value in tensors.items()}


def read(folder: Path, part: slice, remedy: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint, of some features if `part` says so (then on every rank at once).
    Raises FailedRun naming a file that is missing or not what was written."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load

    header = read_object(folder / HEADER) if (folder / HEADER).is_file() else {}
    if header.get("schema") != SCHEMA:
        raise FailedRun(f"{folder} has no whole {HEADER} of schema {SCHEMA}; {remedy}")
    for number, entry in enumerate(header["files"]):
        digests.check_length(folder, entry, remedy)
        if number % ranks.world() == ranks.rank():  # the others read the others
            digests.check(folder, entry, remedy)
    reader = HuggingFaceStorageReader(str(folder))
    first, last, _ = part.indices(header["features"])
    mine = {
        name: torch.empty(last - first, *held.size[1:], dtype=held.properties.dtype)
        for name, held in reader.read_metadata().state_dict_metadata.items()
        if of_features(name) and isinstance(held, TensorStorageMetadata)
    }
    whole = last - first == header["features"]
    # What is read is written into the tensors' own memory.
    state = mine if whole else _sharded(mine, header["features"])
    with _told(f"read {folder}"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as one process means
        load(state, storage_reader=reader, no_dist=whole)
    return {**mine, **load_file(folder / COMMON)}
