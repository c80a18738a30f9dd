"""Ranges of numbers, and the spellings of whole ones."""

import math
from dataclasses import dataclass

import pytest

from saelab.ranges import Count, Decay, Part, Port, Portion, Positive, Share, number, outside


@dataclass
class Several:
    """One field of each kind."""

    count: Count = 1
    maybe: Count | None = None
    counts: tuple[Count, ...] = ()
    port: Port = 80
    positive: Positive = 1.0
    share: Share = 0.5
    portion: Portion = 0.5
    part: Part = 0.5
    decay: Decay = 0.5
    free: int = -7


@pytest.mark.parametrize(
    ("field", "inside", "out"),
    [
        ("count", [1, 2**63 - 1], [0, -1, 2**63, math.nan]),
        ("maybe", [None, 1], [0]),
        ("counts", [(), (1, 2)], [(1, 0)]),
        ("port", [1, 65535], [0, 65536]),
        ("positive", [1e-30, 1e30], [0.0, -1.0, math.nan, math.inf]),
        ("share", [0.0, 1.0], [-1e-9, 1.01, math.nan]),
        ("portion", [1e-9, 1.0], [0.0, 1.01]),
        ("part", [0.0], [1.0, -0.1]),
        ("decay", [0.1], [0.0, 1.0]),
        ("free", [-7, 0], []),
    ],
)
def test_the_ends_of_every_range(field: str, inside: list, out: list):
    for value in inside:
        assert list(outside(Several(**{field: value}))) == []
    for value in out:
        (problem,) = outside(Several(**{field: value}))
        assert problem.startswith(f"{field}=") and ": give a " in problem


def test_what_would_be_right_is_said():
    wrong = Several(count=0, part=1.0, port=0, decay=0.0, positive=-1.0, portion=0.0)
    assert list(outside(wrong)) == [
        "count=0: give a whole number of at least 1",
        "port=0: give a whole number from 1 to 65535",
        "positive=-1.0: give a number above 0",
        "portion=0.0: give a number above 0, at most 1",
        "part=1.0: give a number from 0 to below 1",
        "decay=0.0: give a number between 0 and 1",
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("-5", -5), ("1.5k", 1500), ("1.1M", 1_100_000), ("2b", 2 * 10**9), ("5e3", 5000)],
)
def test_spellings_of_whole_numbers(text: str, value: int):
    assert number(text) == value


@pytest.mark.parametrize(
    "text", ["", "k", "1.5", "0.0001k", "nan", "inf", "1e400", "1e999999999", "1e30", "five", "5kk"]
)
def test_what_is_no_whole_number(text: str):
    with pytest.raises(ValueError, match="is no whole number such as"):
        number(text)
    with pytest.raises(ValueError, match="2000000 or 2e6"):
        number("5k", suffixes=False)
