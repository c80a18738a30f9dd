"""The user's cache folder: what a machine's measurements and compiled loops are remembered in."""

import hashlib
import os
import tempfile
from pathlib import Path


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def user_folder() -> Path | None:
    """`saelab` under XDG_CACHE_HOME or ~/.cache, else in the temporary directory; None where none
    of them is writable."""
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    temporary = Path(tempfile.gettempdir()) / f"saelab-{getattr(os, 'getuid', int)()}"
    return next(
        (folder for folder in (Path(home) / "saelab", temporary) if _writable(folder)), None
    )


def compiled_folder() -> Path | None:
    """Where compiled loops go: a folder named by the kernels' sources, under NUMBA_CACHE_DIR or the
    user's cache folder.

    The name changes with any loop's source because numba looks only at the file of the outermost
    function.
    """
    files = (path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))
    sources = b"".join(
        source for source in files if b"import numba" in source or b"from numba" in source
    )
    name = f"compiled-{hashlib.sha256(sources).hexdigest()[:16]}"
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen and _writable(Path(chosen) / name):
        return Path(chosen) / name
    folder = user_folder()
    return folder / name if folder is not None and _writable(folder / name) else None
