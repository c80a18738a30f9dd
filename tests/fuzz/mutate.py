"""Seeded damage to bytes: what broken disks, cut transfers, careless scripts and enemies do."""

import random
from collections.abc import Callable

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
