"""Measure a paper's claims on the bundled model and on ground truth, and say which hold.

saelab reproduce
saelab reproduce abstopk --quick
saelab reproduce mutual-feature-choice --grid
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from saelab.door import beside
from saelab.ranges import Count

from .common import OfModel, attempt, cell, document, keep, show
from .progress import Bar, bar

reproduce = beside("training.reproduce")
grid = beside("training.reproduce.grid")
cells = beside("training.reproduce.cells")

VERDICT = {True: "yes", False: "no", None: "undecided"}


@dataclass(frozen=True)
class Args(OfModel):
    """Options of `saelab reproduce`."""

    paper: Annotated[
        Positional[str],
        arg(help="; ".join(f"{name}: {what}" for name, what in reproduce.PAPERS.items())),
    ] = ""
    quick: bool = False
    """the small form: fewer tokens and seeds, so that most claims stay undecided"""
    grid: bool = False
    """the claims on training at three numbers of tokens, widths and learning rates, with a figure:
    mutual-feature-choice, g-sae, abstopk"""
    tokens: tuple[Count, ...] = ()
    """numbers of training tokens of the grid, ascending (default: 102400 307200 921600)"""
    features: tuple[Count, ...] = ()
    """widths of the grid (default: 256 512 1024)"""
    out: Path = Path("runs/reproduce")
    """folder of caches, runs and the result; what is there already is reused"""


def run(args: Args) -> int:
    """Measure, write PAPER.json (PAPER-quick.json, PAPER-grid.json) and its figure into the folder,
    print a table."""
    from saelab.locks import only_writer

    with only_writer(args.out), Bars() as bars:  # runs that another process trains would be lost
        where = {"device": args.place, "model_dtype": args.model_dtype or "float32"}
        settings = reproduce.Settings(args.quick, args.seed, args.out, bars.move, **where)
        name, fields = _grid(args, settings) if args.grid else _claims(args, settings)
    result = document(name, args.seed, paper=args.paper, quick=args.quick, **fields)
    _kept(args, result)
    show(result, args.json, grid_table(result) if args.grid else table(result))
    return 0


def _claims(args: Args, settings: Any) -> tuple[str, dict[str, Any]]:
    """The document's name and fields."""
    return "reproduce", {
        "claims": [claim.as_dict() for claim in reproduce.claims(args.paper, settings)]
    }


def _grid(args: Args, settings: Any) -> tuple[str, dict[str, Any]]:
    """The document's name and fields."""
    size = grid.QUICK if args.quick else grid.Size()
    asked = {"tokens": args.tokens, "features": args.features}
    size = size._replace(**{name: tuple(sorted(given)) for name, given in asked.items() if given})
    studies = reproduce.studies(args.paper, settings, size)
    runs = [run for study in studies for run in cells.measured(settings, study, size)]
    rows = [row.as_dict() for study in studies for row in grid.rows(study, runs)]
    return "reproduce_grid", {"size": size._asdict(), "rows": rows, "runs": runs}


def _kept(args: Args, result: dict[str, Any]) -> None:
    """The document and its figure, in the folder."""
    from apps.browser.exports import claims, figures, grids
    from saelab.files import write_atomic

    name = args.paper + args.grid * "-grid" + args.quick * "-quick"
    keep(args.out / f"{name}.json", result)
    page = figures.to_html((grids if args.grid else claims).figure(result))
    attempt(args.out / f"{name}.html", partial(write_atomic, write=lambda t: t.write_text(page)))


class Bars:
    """One bar at a time, a new one for each new thing that is done."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.shown: Bar | None = None

    def __enter__(self) -> "Bars":
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def move(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` of `what` is done."""
        if self.shown is None or what != self.shown.what or done < self.shown.n:
            self.stack.close()
            self.shown = self.stack.enter_context(bar(total, "", what))
        self.shown.to(done)


def table(result: dict) -> str:
    """The claims for people."""
    rows = [("claim", "theirs", "ours [95%]", "holds")]
    rows += [
        (c["claim"], c["theirs"], cell(c, ".4g"), VERDICT[c["holds"]]) for c in result["claims"]
    ]
    return columns(rows)


def grid_table(result: dict) -> str:
    """The rows of a grid for people: the answer, and the estimates from the fewest tokens to the
    most."""
    rows = [("claim", "F", "answer", *(f"{n:,} tokens" for n in result["size"]["tokens"]))]
    rows += [
        (
            f"{row['claim']} ({row['where']})",
            str(row["features"]),
            row["answer"],
            *(cell(point, ".3g") for point in row["points"]),
        )
        for row in result["rows"]
    ]
    return columns(rows)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        " | ".join(part.ljust(width) for part, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
