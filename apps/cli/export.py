"""Write runs' SAEs as other tools read them.

saelab export runs/a --to saelens --out for-saelens
saelab export runs/t0 runs/t1 runs/t2 runs/t3 --to circuit_tracer --out transcoders
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saelab.errors import UsageError

from .common import Common, Runs, document, finished, show

Form = Literal["saelens", "sparsify", "dictionary_learning", "openai", "circuit_tracer"]


@dataclass(frozen=True)
class Args(Common):
    """Options of `saelab export`."""

    runs: Runs = ()
    """run folders; of circuit_tracer the transcoders of every layer"""
    to: Literal["saelens", "sparsify", "dictionary_learning", "openai", "circuit_tracer"] = (
        "saelens"
    )
    """form to write; what it cannot hold is refused with the reason"""
    out: Path = Path("exported")
    """folder to write; of several runs each gets one of its own in it"""


def run(args: Args) -> int:
    """Write, print what was written."""
    from saelab import SAE, formats
    from saelab.files import undone
    from saelab.formats import circuit_tracer

    folders = finished("export", args.runs)
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UsageError(f"{args.out} exists and is not empty: choose another --out")
    saes = [SAE.load(folder) for folder in folders]
    with undone(args.out) as keep:
        if args.to == "circuit_tracer":
            circuit_tracer.write_set(saes, args.out)
        else:
            for sae, place in zip(saes, _places(args, folders), strict=True):
                formats.save(sae, place, args.to)
        keep()
    written = sorted(path for path in args.out.rglob("*") if path.is_file())
    files = [
        {"file": str(path.relative_to(args.out)), "bytes": path.stat().st_size} for path in written
    ]
    fields = {"runs": list(map(str, folders)), "format": args.to, "out": str(args.out)}
    result = document("export", args.seed, **fields, files=files)
    lines = [f"  {file['file']}  {file['bytes']:,} bytes" for file in files]
    show(result, args.json, "\n".join([f"{args.out}: {args.to}", *lines]))
    return 0


def _places(args: Args, folders: list[Path]) -> list[Path]:
    """Where each run goes. Raises UsageError for two of one name."""
    if len(folders) == 1:
        places = [args.out]
    else:
        names = [folder.resolve().name for folder in folders]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise UsageError(f"two runs are called {doubled.pop()}: export them one by one")
        places = [args.out / name for name in names]
    return [place / "sae.pt" if args.to == "openai" else place for place in places]
