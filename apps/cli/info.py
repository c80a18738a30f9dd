"""What a folder or file is (a cache, a run, a sae/ folder, a checkpoint, a document), and whether
it is whole.

    saelab info runs/demo
    saelab info caches/a --verify
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from .common import Common, document, show

if TYPE_CHECKING:
    from saelab.inspection import Inspected


@dataclass(frozen=True)
class Args(Common):
    """Options of `saelab info`."""

    path: Positional[Path] = Path()
    """folder or file"""
    verify: bool = False
    """read every file and compare its digest, not only those of JSON files"""


def run(args: Args) -> int:
    """Look, print; fails where a file is damaged, after saying what is there."""
    from saelab.errors import FailedRun
    from saelab.inspection import inspect

    seen = inspect(args.path, args.verify)
    fields = {
        "path": str(args.path),
        "kind": seen.kind,
        "finished": seen.finished,
        "verified": args.verify,
        "whole": not seen.damaged,
        "facts": seen.facts,
        "files": [{**file._asdict(), "problem": file.problem or None} for file in seen.files],
    }
    show(document("info", args.seed, **fields), args.json, text(args.path, seen, args.verify))
    if seen.damaged:
        first, n_more = seen.damaged[0], len(seen.damaged) - 1
        more = f"; {n_more} more of its files" if n_more else ""
        raise FailedRun(f"{args.path} is damaged: {first.file}: {first.problem}{more}")
    return 0


def text(path: Path, seen: "Inspected", verify: bool) -> str:
    """The result for people."""
    state = "" if seen.finished else ", unfinished"
    lines = [f"{path}: {seen.kind}{state}"]
    lines += [f"  {name}: {_said(value)}" for name, value in seen.facts.items() if value]
    size = sum(file.bytes or 0 for file in seen.files)
    lines.append(f"  files: {len(seen.files)}, {size:,} bytes")
    without = [file.file for file in seen.files if file.digest == "none"]
    if without:
        lines.append(f"  without a digest: {', '.join(without)}")
    if seen.damaged:
        return "\n".join([*lines, *(f"  damaged: {f.file}: {f.problem}" for f in seen.damaged)])
    unread = [file.file for file in seen.files if file.digest == "not read"]
    whole = "every digest that there is is right" if verify else "as far as lengths and JSON say"
    hint = f"; --verify reads the {len(unread)} other digests" if unread else ""
    return "\n".join([*lines, f"  whole: {whole}{hint}"])


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int) else str(value)
