"""Measure a paper's claims on the bundled model and on ground truth, and say which hold.

saelab reproduce
saelab reproduce abstopk --quick
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from saelab.door import beside

from .common import OfModel, cell, document, keep, show
from .progress import Bar, bar

reproduce = beside("training.reproduce")

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
    out: Path = Path("runs/reproduce")
    """folder of caches, runs and the result; what is there already is reused"""


def run(args: Args) -> int:
    """Measure, write PAPER.json (PAPER-quick.json) into the folder, print a table."""
    from saelab.locks import only_writer

    with only_writer(args.out), Bars() as bars:  # runs that another process trains would be lost
        where = {"device": args.place, "model_dtype": args.model_dtype or "float32"}
        settings = reproduce.Settings(args.quick, args.seed, args.out, bars.move, **where)
        claims = reproduce.claims(args.paper, settings)
    result = document(
        "reproduce",
        args.seed,
        paper=args.paper,
        quick=args.quick,
        claims=[claim.as_dict() for claim in claims],
    )
    keep(args.out / f"{args.paper}{'-quick' if args.quick else ''}.json", result)
    show(result, args.json, table(result))
    return 0


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
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        " | ".join(part.ljust(width) for part, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
