"""Every Triton program compiles for cards that are not here, at the block sizes it is launched
with, without spilled registers and within a card's shared memory."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT

pytest.importorskip("triton")

SHARED = {"sm_80": 163, "sm_90a": 227, "gfx942": 64}  # KB that one program can have


def run(*words: str) -> Any:
    """What tests/kernels/compiled.py prints, in a process that does not interpret Triton."""
    environment = {name: v for name, v in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.compiled", *words]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def objections(rows: list[dict[str, Any]]) -> list[str]:
    """Where a program takes more than its card has."""
    return [
        f"{row['program']} on {row['card']}: {row['spilled']} spilled, {row['shared']} B shared"
        for row in rows
        if row["spilled"] or row["shared"] > SHARED[row["card"]] * 1024
    ]


@pytest.fixture(scope="module")
def compiled() -> Any:
    return run()


def test_every_program_compiles_for_every_card_and_fits(compiled: Any):
    for row in compiled["rows"]:
        print(
            "{card:7} {program:32} {warps:2} warps {registers:4} registers {shared:6} B".format(
                **row
            )
        )
    assert {row["card"] for row in compiled["rows"]} == set(SHARED)
    assert objections(compiled["rows"]) == []


def test_no_program_is_left_out(compiled: Any):
    assert compiled["missing"] == []


def test_a_program_too_wide_for_its_registers_and_one_of_too_much_memory_are_caught():
    rows = run("twin")
    assert rows[0]["spilled"] > 1000
    assert len(objections(rows)) == 1
    assert objections([{**rows[0], "spilled": 0, "shared": 64 * 1024 + 1, "card": "gfx942"}])
    assert not objections([{**rows[0], "spilled": 0, "shared": 64 * 1024, "card": "gfx942"}])
