"""Command lines of random words: parsed, or refused in one line."""

import importlib
import random
from dataclasses import fields
from pathlib import Path

import pytest

from apps.cli import VERBS, module_of
from tests.fuzz.mutate import Ends

N = 80  # command lines of each verb
VALUES = ["", "-", "--", "=", "0", "-1", "1", "7", "5k", "1e3", "1e400", "nan", "inf", "None", "x"]
VALUES += [
    "true",
    "9" * 400,
    "é😀",
    "a b",
    "../..",
    "{run}",
    "/dev/null",
    "topk",
    "plain",
    "\n",
    "[]",
]


@pytest.mark.parametrize("verb", VERBS)
def test_command_lines(verb: str, tiny_run: Path, tmp_path: Path, monkeypatch, capsys):
    module = importlib.import_module(f"apps.cli.{module_of(verb)}")
    monkeypatch.setattr(module, "run", lambda args: 0)
    monkeypatch.chdir(tmp_path)
    ends, rng = Ends(capsys), random.Random(verb)
    options = [f"--{field.name.replace('_', '-')}" for field in fields(module.Args)]
    for _ in range(N):
        words = []
        for _ in range(rng.randrange(1, 6)):
            option, value = rng.choice(options), rng.choice(VALUES).format(run=tiny_run)
            words += rng.choice(([option, value], [f"{option}={value}"], [value], [option]))
        words = [word for word in words if word not in ("-h", "--help")]
        ends([verb, *words], "--", "=", "recipe", "Unrecognized", "ositional", *words)
    assert list(tmp_path.iterdir()) == [] and ends.codes[2] > N // 4
    assert ends.codes[0], "no command line was right"
