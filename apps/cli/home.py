"""A home for users without one, such as an arbitrary number in a container."""

import os
import tempfile
from pathlib import Path


def give_home() -> None:
    """Where the system knows no home of this user, set HOME to a folder that is theirs alone:
    Streamlit and Weights & Biases end without one."""
    try:
        Path.home()
    except RuntimeError:
        from saelab.kernels.cpu.remembered import user_folder

        os.environ["HOME"] = str(user_folder() or tempfile.mkdtemp())
