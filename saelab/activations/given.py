"""What somebody holds in memory, or yields batch by batch, as arrays: tensors, numpy arrays,
DataFrames, loaders.

Shapes: B rows of a batch, N rows, C contexts, T positions, D width.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from saelab.errors import UsageError

KINDS = "a tensor, an array, a DataFrame of numbers, or batches of these are right"


def arrays(acts: Any, spool: IO[bytes], limit: int | None = None) -> dict[str, Tensor]:
    """Activations by hook name, "acts" where they have none, as `from_arrays` takes them.

    acts: [N, D] or contexts [C, T, D], or a mapping of such; a DataFrame is its numbers [N, D]. Any
    other iterable, such as a DataLoader, gives batches [B, D] or [B, T, D], of each the first of
    several; they are written to the file `spool`, which is mapped into memory, so that no more than
    one is held. limit: rows after which no further batch is asked for. Raises UsageError for what
    holds no numbers, for batches of several widths, and for none.

    >>> arrays(DataLoader(TensorDataset(x_ND), batch_size=512), spool)["acts"].shape
    """
    if isinstance(acts, Mapping):
        return {str(name): tensor(one, f"{name}") for name, one in acts.items()}
    if isinstance(acts, Tensor | np.ndarray) or hasattr(acts, "to_numpy"):
        return {"acts": tensor(acts, "what is given")}
    if not isinstance(acts, Iterable) or isinstance(acts, str | bytes | Path):
        raise UsageError(f"what is given is a {type(acts).__name__}: {KINDS}")
    return {"acts": _spooled(iter(acts), spool, limit)}


def tensor(one: Any, what: str) -> Tensor:
    """A tensor, an array or a DataFrame as a tensor on the CPU: numbers as they are, a frame's as
    float32. Raises UsageError, which calls it `what`, for anything else."""
    if isinstance(one, Tensor):
        return one.detach().cpu()
    if hasattr(one, "to_numpy"):
        try:
            return torch.from_numpy(one.to_numpy().astype(np.float32))
        except (TypeError, ValueError):
            raise UsageError(f"{what} has columns that are no numbers: leave them out") from None
    if not isinstance(one, np.ndarray) or one.dtype == object:
        raise UsageError(f"{what} is a {type(one).__name__}: {KINDS}")
    # Of a foreign byte order torch has no tensor, and it warns of one that nobody may write.
    native = np.ascontiguousarray(one, one.dtype.newbyteorder("="))
    return torch.from_numpy(native if native.flags.writeable else native.copy())


def _spooled(batches: Iterator[Any], spool: IO[bytes], limit: int | None) -> Tensor:
    shape: list[int] = []
    n_rows = 0
    for number, batch in enumerate(batches):
        rows = _rows(batch, number)
        shape = shape or list(rows.shape[1:])
        if list(rows.shape[1:]) != shape:
            raise UsageError(
                f"batch {number} has rows of shape {list(rows.shape[1:])}, those before it "
                f"{shape}: one shape is right"
            )
        spool.write(rows.numpy().data)
        n_rows += len(rows)
        if limit is not None and n_rows * int(np.prod(shape[:-1])) >= limit:
            break
    spool.flush()
    if not n_rows:
        raise UsageError("what is given has no batches with rows in them")
    mapped = np.memmap(spool, np.float32, "c", shape=(n_rows, *shape))
    return torch.from_numpy(mapped)


def _rows(batch: Any, number: int) -> Tensor:
    if isinstance(batch, list | tuple) and batch:
        batch = batch[0]  # what else a loader gives, such as labels, comes behind it
    rows = tensor(batch, f"batch {number}")
    if rows.ndim not in (2, 3):
        raise UsageError(
            f"batch {number} has shape {list(rows.shape)}: [B, D] or [B, T, D] is right"
        )
    return rows.float().contiguous()
