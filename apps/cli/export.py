"""Write runs' SAEs, and what runs hold, as other tools read them, or as pages and tables.

saelab export runs/a --to saelens --out for-saelens
saelab export runs/t0 runs/t1 runs/t2 runs/t3 --to circuit_tracer --out transcoders
saelab export runs/clt --to circuit_tracer_clt --out cross-layer
saelab export runs/a --to delphi --out for-delphi
saelab export runs/a --to neuronpedia --model-id gpt2-small --set res-mine --out for-neuronpedia
saelab export runs/a --to static --features 0-99 --out a-pages --yes
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from saelab.errors import UsageError
from saelab.ranges import Count

from . import export_others, export_pages
from .common import Folder, OnDevice, Runs, document, finished, show
from .numbers import Numbers

Word = Annotated[str, arg(metavar="NAME", help_behavior_hint="")]
Form = Literal[
    "saelens", "sparsify", "dictionary_learning", "openai", "circuit_tracer",
    "circuit_tracer_clt", "delphi", "sae_dashboard", "neuronpedia", "saebench",
    "html", "static", "report", "tables", "figures",
]  # fmt: skip


@dataclass(frozen=True)
class Args(OnDevice):
    """Options of `saelab export`."""

    runs: Runs = ()
    """run folders; of circuit_tracer the transcoders of every layer"""
    to: Form = "saelens"
    """form to write; what it cannot hold is refused with the reason"""
    out: Path = Path("exported")
    """folder to write; of several runs each gets one of its own in it"""
    cache: Folder = None
    """for delphi, the activation cache to read (default: the one the run was trained on)"""
    tokens: Count = 10_000_000
    """for delphi, tokens of it to read, such as 500k or 2M"""
    model_id: Word = ""
    """for sae_dashboard and neuronpedia, Neuronpedia's name of the model (default: the last part of
    the name it has here)"""
    set: Word = ""
    """for these, the name of the set of SAEs, without the layer (default: the run's folder)"""
    features: Numbers = ""
    """for sae_dashboard, neuronpedia, html, static, report and tables, the features to write, such
    as 7,12,100-120 (default: all; of report those with a label, note, star or list)"""
    yes: bool = False
    """for static, write it however large it is"""
    picture: Literal["html", "svg", "png"] = "html"
    """for figures, the form of their files; svg and png need kaleido and a Chromium"""


def run(args: Args) -> int:
    """Write, print what was written."""
    from saelab.files import undone

    folders = finished("export", args.runs)
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UsageError(f"{args.out} exists and is not empty: choose another --out")
    with undone(args.out) as keep:
        _write(args, folders)
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


def _write(args: Args, folders: list[Path]) -> None:
    """All runs as one set, or each into its own place."""
    if args.to == "circuit_tracer":
        from saelab import opening
        from saelab.formats import circuit_tracer

        circuit_tracer.write_set([opening.told(folder) for folder in folders], args.out)
        return
    write = OTHERS.get(args.to, _sae)
    for folder, place in zip(folders, _places(args, folders), strict=True):
        write(args, folder, place)


def _sae(args: Args, folder: Path, place: Path) -> None:
    """The SAE itself."""
    from saelab import formats, opening

    told = opening.told(folder, any_kind=True)
    formats.save(told, place / "sae.pt" if args.to == "openai" else place, args.to)


# What is written of a run that is not its SAE.
OTHERS: dict[str, Callable[[Args, Path, Path], None]] = {
    "delphi": export_others.delphi,
    "sae_dashboard": export_others.dashboards,
    "neuronpedia": export_others.dashboards,
    "saebench": export_others.saebench,
    "html": export_pages.html,
    "static": export_pages.static,
    "report": export_pages.report,
    "tables": export_pages.tables,
    "figures": export_pages.figures,
}


def _places(args: Args, folders: list[Path]) -> list[Path]:
    """Where each run goes. Raises UsageError for two of one name."""
    if len(folders) == 1:
        return [args.out]
    names = [folder.resolve().name for folder in folders]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two runs are called {doubled.pop()}: export them one by one")
    return [args.out / name for name in names]
