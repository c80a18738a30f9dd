"""Records as an index's file has them: deflated, with bytes of like place side by side. Imports no
torch.

Of numbers that are near each other the upper bytes are alike, and a run of them deflates to little:
nothing is rounded (the filter `shuffle` of HDF5 does the same).
"""

import zlib

import numpy as np
from numpy.typing import DTypeLike, NDArray

LEVEL = 1  # of zlib: the higher ones take twice the time for a fiftieth of the bytes


def pack(raw: bytes, size: int) -> bytes:
    """The bytes of records of `size` bytes each, packed; of none, no bytes.

    >>> blob = pack(records_N.tobytes(), records_N.itemsize)
    """
    if not raw:
        return b""
    bytes_NS = np.frombuffer(raw, np.uint8).reshape(-1, size)
    return zlib.compress(bytes_NS.T.tobytes(), LEVEL)


def unpack(blob: bytes, dtype: DTypeLike) -> NDArray:
    """The records [N] that were packed. Raises ValueError for bytes that are damaged.

    >>> records_N = unpack(blob, PAIR)
    """
    kind = np.dtype(dtype)
    if not blob:
        return np.zeros(0, kind)
    try:
        raw = zlib.decompress(blob)
    except zlib.error as error:
        raise ValueError(f"a list cannot be unpacked: {error}") from None
    bytes_SN = np.frombuffer(raw, np.uint8).reshape(kind.itemsize, -1)
    return bytes_SN.T.copy().view(kind).reshape(-1)
