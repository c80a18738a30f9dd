"""Compiling loops: where numba keeps them, how many threads they use, and one caller at a time."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import torch
from numba.core import config as numba_config

from saelab.kernels.cpu.remembered import compiled_folder

config: Any = numba_config  # its attributes are made at run time
# Threads that wait by spinning, as OpenMP's do, take 7 ms per loop on a busy machine, and must not
# be forked.
if "NUMBA_THREADING_LAYER" not in os.environ:
    config.THREADING_LAYER = "workqueue"
_FOLDER = compiled_folder()
_lock = threading.RLock()


def compiled(*, parallel: bool = False, reorder: bool = False) -> Callable[[Any], Any]:
    """Compile a loop without the interpreter lock; reorder: sums may be split into lanes and
    multiply-adds fused.

    Neither NaN nor infinity is assumed away. The compiled code is kept on disk where a folder is
    writable.
    """

    def decorate(function: Callable) -> Any:
        before = config.CACHE_DIR
        if _FOLDER is not None:
            config.CACHE_DIR = str(_FOLDER)
        try:
            return numba.njit(
                nogil=True,
                error_model="numpy",
                parallel=parallel,
                cache=_FOLDER is not None,
                fastmath={"reassoc", "contract", "nsz"} if reorder else {"contract"},
            )(function)
        finally:
            config.CACHE_DIR = before

    return decorate


@contextmanager
def threads() -> Iterator[None]:
    """One caller at a time (the thread pool ends the process otherwise), with as many threads as
    torch uses."""
    with _lock:
        numba.set_num_threads(min(torch.get_num_threads(), config.NUMBA_NUM_THREADS))
        yield
