"""Writing what a run's pages show: features as HTML, a folder of pages, a report, tables,
figures."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from saelab.errors import UsageError

from .common import megabytes
from .numbers import numbers
from .progress import bar

if TYPE_CHECKING:
    from apps.browser.exports.subject import Subject


class Asked(Protocol):
    """What is asked of the options of `saelab export`."""

    @property
    def to(self) -> str:
        """The form."""
        ...

    @property
    def features(self) -> str:
        """Features by number."""
        ...

    @property
    def yes(self) -> bool:
        """Whether nothing is to be asked."""
        ...

    @property
    def picture(self) -> str:
        """A figure's form."""
        ...


def html(args: Asked, folder: Path, place: Path) -> None:
    """Each feature as one file."""
    from apps.browser.exports import report

    opened = _opened(folder)
    chosen = _named(args, opened)
    place.mkdir(parents=True, exist_ok=True)
    for number in chosen:
        written = report.one(opened, number)
        (place / f"feature-{number}.html").write_text(written, encoding="utf-8")


def static(args: Asked, folder: Path, place: Path) -> None:
    """A folder of pages; how large it will be is said first, and asked."""
    from apps.browser.exports import static

    opened = _opened(folder)
    asked = numbers(args.features or "all", opened.reader.n_features)
    live = set(opened.live)
    chosen = [number for number in asked if number in live]
    if not chosen:
        raise UsageError(f"none of these features of {folder} fired on the indexed tokens")
    size = static.size(opened, chosen)
    much = f"{place}: {len(chosen):,} features that fired, about {megabytes(size)}"
    if not args.yes and not _agreed(much):
        raise UsageError(f"{much}: --yes writes it, --features 7,12,100-120 fewer of them")
    print(much, file=sys.stderr)
    with bar(len(chosen), "page") as shown:
        static.write(opened, chosen, place, shown.to)


def report(args: Asked, folder: Path, place: Path) -> None:
    """Chosen features, by default those that somebody has said something of, in one file."""
    from apps.browser.exports import report

    opened = _opened(folder)
    chosen = _named(args, opened) if args.features else sorted(opened.annotations)
    if not chosen:
        raise UsageError(
            f"no feature of {folder} has a label, a note, a star or a list: name some with "
            "--features 7,12"
        )
    place.mkdir(parents=True, exist_ok=True)
    (place / "report.html").write_text(report.several(opened, chosen), encoding="utf-8")


def tables(args: Asked, folder: Path, place: Path) -> None:
    """Every table, whole, as CSV and JSON."""
    from apps.browser.exports import run_tables

    opened = _opened(folder)
    chosen = numbers(args.features or "all", opened.reader.n_features)
    run_tables.write(opened, chosen, place)


def figures(args: Asked, folder: Path, place: Path) -> None:
    """The figures of a run's page, each as one file."""
    from apps.browser.exports import figures, run_figures

    drawn = run_figures.of(_opened(folder))
    place.mkdir(parents=True, exist_ok=True)
    for name, draw in drawn.items():
        if (figure := draw()) is not None:
            figures.save(figure, place / f"{name}.{args.picture}")


def _opened(folder: Path) -> "Subject":
    from apps.browser.exports import subject

    return subject.open(folder)


def _named(args: Asked, opened: "Subject") -> list[int]:
    chosen = numbers(args.features, opened.reader.n_features)
    if not chosen:
        raise UsageError(f"--to {args.to} writes features by number: name them, --features 7,12")
    return chosen


def _agreed(what: str) -> bool:
    """Whether the person at the terminal, if there is one, wants it."""
    if not sys.stdin.isatty():
        return False
    print(f"{what}; write it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
