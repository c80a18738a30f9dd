"""Every number that a verb takes has a range, and one outside it is refused before anything is made
or loaded."""

import importlib
from pathlib import Path
from typing import Any, get_args

import pytest

from apps.cli import VERBS, main, module_of
from saelab.ranges import Range, hints, ranges


def numeric(hint: Any) -> set[type]:
    """The types of number in an annotated type."""
    if hint in (int, float):
        return {hint}
    return set().union(*(numeric(part) for part in get_args(hint) if not isinstance(part, Range)))


def options() -> list[tuple[str, str]]:
    """(verb, field) of every number on every command line."""
    rows = []
    for verb in VERBS:
        args = importlib.import_module(f"apps.cli.{module_of(verb)}").Args
        rows += [(verb, name) for name, hint in hints(args).items() if numeric(hint)]
    return rows


def field(verb: str, name: str) -> Any:
    """The type of a field."""
    return hints(importlib.import_module(f"apps.cli.{module_of(verb)}").Args)[name]


def wrong(hint: Any) -> list[str]:
    """Numbers that lie outside a type's range, as words; none for a type without one."""
    tried = ["-1", "0", "1", "2", "65536", "9223372036854775808"]
    tried += ["nan", "inf", "-0.5", "1.5"] if float in numeric(hint) else []
    bounds = list(ranges(hint))
    return [word for word in tried if any(float(word) not in bound for bound in bounds)]


def test_there_are_numbers_of_every_verb_that_has_some():
    assert {verb for verb, _ in options()} == set(VERBS) and len(options()) > 50


@pytest.mark.parametrize(("verb", "name"), options())
def test_a_number_that_cannot_be_meant_is_refused_at_the_door(
    verb: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    module = importlib.import_module(f"apps.cli.{module_of(verb)}")
    monkeypatch.setattr(module, "run", lambda args: pytest.fail("it ran"))
    monkeypatch.chdir(tmp_path)
    words = wrong(field(verb, name))
    assert "-1" in words
    for word in words:
        assert main([verb, f"--{name.replace('_', '-')}={word}"]) == 2
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert name in last or name.replace("_", "-") in last
    assert list(tmp_path.iterdir()) == []


def test_a_number_without_a_range_is_caught():
    assert wrong(int | None) == wrong(tuple[float, ...]) == [] and numeric(int | None) == {int}
