"""The commands that the guides show are commands: their verbs and options exist."""

import re
import shlex
from pathlib import Path

import pytest

from apps.cli import VERBS, parsing
from saelab.errors import UsageError
from tests.conftest import ROOT

GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))


def commands(text: str) -> list[list[str]]:
    """The words of each `saelab` command in a text's blocks of code."""
    lines = [
        line
        for block in re.findall(r"```\n(.*?)```", text, re.S)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [shlex.split(line)[1:] for line in lines if line.startswith("saelab ")]


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)
def test_every_command_of_a_guide_parses(path: Path):
    shown = commands(path.read_text(encoding="utf-8"))
    assert shown
    for verb, *words in shown:
        assert verb in VERBS
        parsing.parse(verb, words)


def test_an_option_that_is_none_is_caught():
    ((verb, *words),) = commands("```\nsaelab steer run --featur 3\n```")
    with pytest.raises(UsageError, match="--feature"):
        parsing.parse(verb, words)
