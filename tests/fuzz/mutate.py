"""Seeded damage to bytes and values: what broken disks, cut transfers, careless scripts and enemies
do; and how commands may end on it."""

import copy
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from apps.cli import main

HOSTILE = [
    b"\x00",
    b"\xff\xfe",
    b"\xed\xa0\xbd",
    b"\xc3",
    b"\xe2\x80\xa8",
    b"\\ud83d",
    b'"',
    b"{" * 40,
    b"[" * 2000,
    b"9" * 5000,
    b"null",
    b"NaN",
    b"-1e999",
    b"\r\n\n",
    b",,,\t\t",
    b"../../etc/passwd",
]


def _flip(raw: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 1, 8))):
        if raw:
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)


def _cut(raw: bytearray, rng: random.Random) -> None:
    del raw[rng.randrange(len(raw) + 1) :]


def _drop(raw: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(raw) + 1)
    del raw[at : at + rng.choice((1, 2, 16, 200))]


def _insert(raw: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(raw) + 1)
    raw[at:at] = rng.choice(HOSTILE)


def _repeat(raw: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(raw) + 1)
    part = raw[at : at + rng.choice((1, 16, 200))]
    raw[at:at] = part * rng.choice((1, 3))


def _append(raw: bytearray, rng: random.Random) -> None:
    raw += rng.choice(HOSTILE)


WAYS: list[Callable[[bytearray, random.Random], None]] = [
    _flip,
    _cut,
    _drop,
    _insert,
    _repeat,
    _append,
]


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """The bytes, damaged in one to three ways."""
    mutable = bytearray(raw)
    for way in rng.choices(WAYS, k=rng.choice((1, 1, 2, 3))):
        way(mutable, rng)
    return bytes(mutable)


ODD = [None, True, False, 0, -1, 1.5, 10**30, float("nan"), "", "x", "../../x", [], [[]], {}]
ODD += [{"a": 1}, [1, 2, 3], "9" * 400, "\ud83d", -(2**63), 1e308]


def places(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """The way to every field and entry within a JSON value."""
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, one in inner:
        yield (*at, key)
        yield from places(one, (*at, key))


def twisted(value: Any, rng: random.Random) -> Any:
    """A JSON value in which a field or two hold something else, are gone or have another name."""
    whole = {"": copy.deepcopy(value)}
    for _ in range(rng.choice((1, 1, 2))):
        way = rng.choice([("",), *places(whole[""], ("",))])
        inside: Any = whole
        for key in way[:-1]:
            inside = inside[key]
        if rng.random() < 0.25 and len(way) > 1:
            one = inside.pop(way[-1])
            if isinstance(inside, dict) and rng.random() < 0.5:
                inside[f"{way[-1]}_"] = one
        else:
            inside[way[-1]] = rng.choice(ODD)
    return whole[""]


class Ends:
    """How commands ended: each with exit code 0, 1 or 2, no traceback, and a last line that says
    what is wrong in words."""

    def __init__(self, capsys: Any) -> None:
        self.capsys, self.codes = capsys, Counter()

    def __call__(self, argv: list[str], *names: str) -> int:
        """Run a command; one that is refused must name one of `names`."""
        code = main(argv)
        said = self.capsys.readouterr().err
        last = said.rstrip("\n").split("\n")[-1]
        assert code in (0, 1, 2) and "Traceback" not in said, (argv, said)
        if code:
            assert last.startswith("saelab ") and len(last) < 2000, (argv, last)
            if re.match(r"saelab [\w-]+: \w+(Error|Exception): ", last):
                main([*argv, "--debug"])  # which raises it
                raise AssertionError((argv, last))
            assert any(name in last for name in names), (argv, last, names)
        self.codes[code] += 1
        return code
