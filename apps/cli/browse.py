"""Open the feature browser on runs, or on folders that hold runs, at a local address.

saelab browse runs/demo
saelab browse runs --port 8601
"""

import contextlib
import io
import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from saelab.errors import UsageError
from saelab.folders import find
from saelab.ranges import Port
from saelab.runs import RunFolder

from . import progress
from .common import Common, document, show, unsaid

HOST = "127.0.0.1"
FIRST_PORT, LAST_PORT = 8501, 8600


@dataclass(frozen=True)
class Args(Common):
    """Options of `saelab browse`."""

    runs: Positional[tuple[Path, ...]] = (Path("runs"),)
    """runs, or folders that hold runs"""
    port: Annotated[Port | None, unsaid] = None
    """port to listen on (default: the first free one from 8501)"""


def _free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def pick_port(wanted: int | None) -> int:
    """The port to listen on. Raises UsageError if the wanted one, or every one that would be tried,
    is taken."""
    if wanted is not None:
        if not _free(wanted):
            raise UsageError(f"port {wanted} is taken: name another, or none to get a free one")
        return wanted
    free = next((port for port in range(FIRST_PORT, LAST_PORT) if _free(port)), None)
    if free is None:
        raise UsageError(
            f"ports {FIRST_PORT} to {LAST_PORT - 1} are all taken: name a free one with --port"
        )
    return free


def check_places(places: tuple[Path, ...]) -> dict[str, Path]:
    """The runs at or below the places. Raises UsageError for a place that does not exist and if
    there are no runs."""
    runs = find(places)
    if runs or find(places, RunFolder.is_circuit) or find(places, RunFolder.is_graphs):
        missing = [str(place) for place in places if not place.is_dir()]
        if missing:
            raise UsageError(f"no such folder: {', '.join(missing)}")
        return runs
    where = ", ".join(str(place) for place in places)
    raise UsageError(
        f"no runs in {where}: `saelab demo` makes one, or name the folder that `saelab train "
        "--out` wrote"
    )


def serve(places: tuple[Path, ...], port: int) -> None:
    """Run the app in this process until it is interrupted.

    Being in this process, the app imports the packages this command was started from, whatever
    folders are in the current one.
    """
    from ..browser import PLACES, server

    os.environ[PLACES] = json.dumps([str(place) for place in places])
    # Streamlit announces its own address on stdout, where this command's result stands.
    with contextlib.redirect_stdout(io.StringIO()):
        server.run(HOST, port)


def run(args: Args) -> None:
    """Check the places and the port, print the address, serve."""
    runs, port = check_places(args.runs), pick_port(args.port)
    address = f"http://{HOST}:{port}"
    lines = [
        f"saelab browser: {address}",
        *(_line(name, folder) for name, folder in runs.items()),
        "Ctrl-C ends it.",
    ]
    result = document(
        "browse",
        args.seed,
        address=address,
        runs={name: str(folder) for name, folder in runs.items()},
    )
    show(result, args.json, "\n".join(lines))
    sys.stdout.flush()
    progress.silence()
    serve(args.runs, port)


def _line(name: str, folder: Path) -> str:
    run = RunFolder(folder)
    if run.features.is_file():
        return f"  {name}"
    if run.is_unfinished():
        return f"  {name}: training has not finished"
    return f"  {name}: no feature index yet, `saelab index {folder}` makes it"
