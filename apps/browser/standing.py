"""What a run is and how far it is, and which places paired intervals allow it among others. Imports
no Streamlit."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saelab import sparsify
from saelab.errors import FailedRun
from saelab.files import read_object
from saelab.runs import RunFolder, read

COLUMNS = ("l0", "fvu", "ce_recovered", "dead_fraction")  # keys of a report's estimates


class Standing(NamedTuple):
    """A run in a table of several."""

    name: str
    sparsifier: str
    """in the field's word; "" where it is not known"""
    width: int | None
    """number of features"""
    report: Mapping[str, Any]
    """of `saelab eval`; empty before"""
    state: str
    """how far it is, or what of it cannot be read"""
    place: str
    """where it reads, and what it explains: only runs at one place are compared"""
    training: bool
    """whether it has no SAE yet"""

    def value(self, key: str) -> float | None:
        """An estimate's value; None where it is not known."""
        field = self.report.get(key)
        return field.get("value") if isinstance(field, Mapping) else None


def standing(name: str, folder: Path, rows: Callable[[Path], Sequence[Mapping]]) -> Standing:
    """What a run's files say; rows: of its metrics.jsonl. What cannot be read is told in its
    state, and keeps no other run from being shown."""
    run = RunFolder(folder)
    try:
        header, report = read(run.header), read(run.report)
        origin = run.origin()
        if not header and run.is_unfinished():
            return _unfinished(name, run, rows(folder))
        state = "" if report else "not evaluated"
        word = sparsify.of_header(header) if header else str(origin.form or "")
        place = " to ".join(dict.fromkeys(origin.hooks))
        return Standing(name, word, header.get("n_features"), report, state, place, False)
    except (FailedRun, OSError, AttributeError, LookupError, TypeError, ValueError) as error:
        told = " ".join(str(error).split())[:200]
        return Standing(name, "", None, {}, f"cannot be read: {told}", "", False)


def _unfinished(name: str, run: RunFolder, rows: Sequence[Mapping]) -> Standing:
    """A run without an SAE: as its configuration says."""
    import yaml

    config = yaml.safe_load(run.config.read_text(encoding="utf-8"))
    wanted = config.get("tokens")
    done = rows[-1].get("tokens", 0) if rows else 0
    share = f"{done / wanted:.0%}" if isinstance(wanted, int) and wanted else f"{done:,} tokens"
    word = sparsify.title(str(config.get("sparsify") or ""), config.get("k"))
    place = " to ".join(filter(None, (config.get("hook"), config.get("target"))))
    return Standing(name, word, config.get("features"), {}, f"training, {share}", place, True)


def ordered(standings: Sequence[Standing], key: str, descending: bool) -> list[Standing]:
    """By a column; those without a value last."""
    if key in ("name", "sparsifier"):
        return sorted(standings, key=lambda each: getattr(each, key), reverse=descending)

    def value(each: Standing) -> float | None:
        return each.width if key == "width" else each.value(key)

    known = [each for each in standings if value(each) is not None]
    rest = [each for each in standings if value(each) is None]
    return sorted(known, key=lambda each: value(each) or 0.0, reverse=descending) + rest


class Place(NamedTuple):
    """The places that a run can have among several."""

    name: str
    best: int
    """1 + how many are better, as paired intervals say"""
    worst: int
    """how many there are, less those that it is better than"""
    unknown: list[str]
    """those that it is not compared with"""


def places(names: Sequence[str], verdicts: Mapping[tuple[str, str], str]) -> list[Place]:
    """Which places verdicts allow, best first. verdicts: (first, second) to what is said of the
    second, each pair in one order.

    >>> places(["a", "b"], {("a", "b"): "worse"})
    [Place(name='a', best=1, worst=1, unknown=[]), Place(name='b', best=2, worst=2, unknown=[])]
    """
    turned = {"better": "worse", "worse": "better"}
    said = dict(verdicts)
    said |= {(b, a): turned.get(word, word) for (a, b), word in verdicts.items()}
    found = []
    for name in names:
        others = [other for other in names if other != name]
        words = [said.get((name, other)) for other in others]
        better, worse = words.count("better"), words.count("worse")
        unknown = [o for o, word in zip(others, words, strict=True) if word is None]
        found.append(Place(name, 1 + better, len(names) - worse, unknown))
    return sorted(found, key=lambda each: (each.best + each.worst, each.best))


def readable(path: Path) -> dict[str, Any]:
    """The fields of a document; empty for a damaged one, which its own page names."""
    try:
        return read_object(path)
    except (FailedRun, OSError):
        return {}
