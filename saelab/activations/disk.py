"""A disk that is full, or would be."""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from saelab.errors import FailedRun, UsageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def require(out: Path, n_bytes: int) -> None:
    """Raise UsageError where the disk of a folder, which need not exist, has no room for so many
    bytes."""
    folder = next(p for p in [out, *out.absolute().parents] if p.exists())
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise UsageError(
            f"the cache needs {n_bytes:,} more bytes, {folder} has {free:,} free: "
            "fewer --tokens, or another --out"
        )


@contextmanager
def room(path: Path, n_bytes: int) -> Iterator[None]:
    """Within the block, errors that mean a full disk become a FailedRun that says how much is
    missing."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        told = re.search(r"os error (\d+)", str(error))
        if (int(told[1]) if told else getattr(error, "errno", None)) in FULL:
            raise FailedRun(
                f"disk full: {path} needs {n_bytes:,} more bytes; "
                "make room and repeat the command to resume"
            ) from None
        raise
