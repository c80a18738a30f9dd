"""Parts of mapped files whose memory is given back once they have been read: a file of weights is
then never in memory as a whole beside what is made of it."""

import contextlib
import ctypes
import mmap
import re
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

AREA = re.compile(r"([0-9a-f]+)-([0-9a-f]+) [r-][w-][x-]p [0-9a-f]+ \S+ (\d+) ")
DONT_NEED = getattr(mmap, "MADV_DONTNEED", None)


def forget(part: Tensor) -> None:
    """Give back the pages that a tensor of a mapped file fills; the file still has them, and they
    are read again when they are wanted. Nothing happens to a tensor that lies elsewhere, or on a
    system that does not tell.

    The tensor must never have been written to: what was written would be lost.
    """
    first = part.data_ptr()
    last = first + part.nbytes
    if DONT_NEED is not None and part.is_contiguous() and _is_of_a_file(first, last):
        start = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
        length = last // mmap.PAGESIZE * mmap.PAGESIZE - start
        if length > 0:
            _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), DONT_NEED)


def _is_of_a_file(first: int, last: int) -> bool:
    """Whether these addresses are a private mapping of one file."""
    with contextlib.suppress(OSError), Path("/proc/self/maps").open(encoding="utf-8") as areas:
        for line in areas:
            area = AREA.match(line)
            if area and int(area[1], 16) <= first and last <= int(area[2], 16):
                return area[3] != "0"  # its inode: memory that is no file's has none
    return False


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)
