"""What a folder or file is (a cache, a run, a checkpoint, a document, a published SAE, a folder of
several, a model), whether it is whole, and what to type to use it.

    saelab info runs/demo
    saelab info caches/a --verify
    saelab info hub:google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from .common import Common, document, show

if TYPE_CHECKING:
    from saelab.inspection import Inspected


# Facts of several parts, which have a line each, by what they are called to people.
TITLES = {
    "holds": "holds, by the word that --select takes",
    "applied": "applied in reading",
    "unknown": "not known from its files",
    "next": "to use it",
    "hook points": "hook points by width, N being any layer",
}
SHOWN = 40  # parts of a fact


@dataclass(frozen=True)
class Args(Common):
    """Options of `saelab info`."""

    path: Positional[Path] = Path()
    """folder or file; hub:org/repo/path of the local cache; bundled"""
    verify: bool = False
    """read every file and compare its digest, not only those of JSON files; of a published SAE,
    which has none, read every weight"""


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
    for name, value in seen.facts.items():
        lines += _fact(name, value)
    if not seen.files:
        return "\n".join(lines)
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


def _fact(name: str, value: Any) -> list[str]:
    """A fact in a line, one of several parts in a line each; nothing where it is not known."""
    said = f"  {TITLES.get(name, name)}:"
    if not value:
        return []
    if name not in TITLES:
        return [f"{said} {_said(value)}"]
    parts = by_width(value) if name == "hook points" else list(value)
    more = [f"    and {len(parts) - SHOWN} more (--json has all)"] if len(parts) > SHOWN else []
    return [said, *(f"    {part}" for part in parts[:SHOWN]), *more]


def by_width(widths: dict[str, int]) -> list[str]:
    """Hook points in a line for each width, those of the plainest names first."""
    lines = []
    for width in dict.fromkeys(widths.values()):
        names = [name for name, other in widths.items() if other == width]
        lines.append(f"{width:,}: {', '.join(sorted(names, key=lambda name: name.count('.')))}")
    return lines


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:,}" if isinstance(value, int) else str(value)
