"""The user's cache folder: what a machine's measurements and compiled loops are remembered in.

Numba unpickles what it finds there, so whoever can write there can run code in this process.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

OTHERS = stat.S_IWGRP | stat.S_IWOTH  # the right of others than the owner to write


def _private(folder: Path) -> bool:
    """Whether a folder, made if it is missing, can be written by this user and by nobody else."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return _owned(folder) and _stays(folder)
    except OSError:
        return False


def _owned(folder: Path) -> bool:
    """Whether the folder is this user's, and nobody else may write into it."""
    status = folder.stat()
    mine = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return mine and not (os.name == "posix" and status.st_mode & OTHERS)


def _stays(folder: Path) -> bool:
    """Whether no stranger can put another folder in its place: not so where everybody may rename,
    as in a shared folder without the sticky bit that /tmp has."""
    above = (place.stat().st_mode for place in folder.resolve().parents)
    return not any(mode & stat.S_IWOTH and not mode & stat.S_ISVTX for mode in above)


def _candidates() -> list[Path]:
    """Where the user's cache folder may lie, the best place first."""
    places = []
    # A user may have no home: an arbitrary number in a container. Nor need any temporary directory
    # be writable.
    with contextlib.suppress(RuntimeError):
        home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        places.append(Path(home) / "saelab")
    with contextlib.suppress(OSError):
        user = getattr(os, "getuid", int)()
        places.append(Path(tempfile.gettempdir()) / f"saelab-{user}")
    return places


def user_folder() -> Path | None:
    """`saelab` under XDG_CACHE_HOME or ~/.cache, else `saelab-USER` in the temporary directory;
    None where neither can be this user's alone."""
    return next((folder for folder in _candidates() if _private(folder)), None)


def compiled_folder() -> Path | None:
    """Where compiled loops go: a folder named by the kernels' sources, under NUMBA_CACHE_DIR or the
    user's cache folder; None where neither can be this user's alone.

    The name changes with any loop's source because numba looks only at the file of the outermost
    function.
    """
    files = (path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))
    sources = b"".join(
        source for source in files if b"import numba" in source or b"from numba" in source
    )
    name = f"compiled-{hashlib.sha256(sources).hexdigest()[:16]}"
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    places = [Path(chosen)] if chosen else []
    places += [folder] if (folder := user_folder()) else []
    return next((place / name for place in places if _private(place / name)), None)
