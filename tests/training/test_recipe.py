"""Recipes are read as the command line is: the same word gives the same value, or is refused."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from apps.cli.parsing import parse
from saelab import Config
from saelab.errors import UsageError
from saelab.ranges import outside
from training import config

# Suffixes are the command line's alone; a word of YAML that means nothing is no word there.
WORDS = ["4", "1e1", "1e-3", "010", "3.5", "-1", "0", "nan", "abc", "None", "l0", "none", "1_0"]
WORDS += ["matryoshka", "matryoshkaa", "bfloat16", "float16", "zipf", "cpu", "true", "5e3", "1:30"]


def of_recipe(path: Path, name: str, word: str) -> Any:
    """A field's value, or UsageError."""
    path.write_text(f"{name}: {word}\n")
    try:
        read = config.read(path)
    except UsageError as error:
        assert str(error).startswith(f"{path}: {name}: ")
        return UsageError
    return UsageError if list(outside(read)) else getattr(read, name)


def of_command(name: str, word: str) -> Any:
    """A field's value, or UsageError."""
    try:
        return getattr(parse("train", [f"--{name.replace('_', '-')}", word])[1], name)
    except UsageError:
        return UsageError


@pytest.mark.parametrize(
    "name", [f.name for f in fields(Config) if not isinstance(f.default, bool)]
)
def test_a_recipe_is_typed_like_the_command_line(name: str, tmp_path: Path):
    for word in WORDS:
        mine, theirs = of_recipe(tmp_path / "r.yaml", name, word), of_command(name, word)
        assert (mine, type(mine)) == (theirs, type(theirs)), word


@pytest.mark.parametrize("name", ["wandb", "skip"])
def test_flags_are_true_or_false(name: str, tmp_path: Path):
    recipe = tmp_path / "r.yaml"
    for word, value in {"true": True, "False": False, '"false"': False, "no": False}.items():
        assert of_recipe(recipe, name, word) is value
    for word in ("1", "maybe", "null", '""'):
        assert of_recipe(recipe, name, word) is UsageError


def test_yaml_s_own_guesses_would_be_wrong(tmp_path: Path):
    """The known-bad twin: what a plain YAML reader makes of the same words."""
    bad = yaml.safe_load("[1e-3, 010, 1:30, no]")
    assert bad == ["1e-3", 8, 90, False]
    recipe = tmp_path / "r.yaml"
    assert of_recipe(recipe, "lr", "1e-3") == 0.001 and of_recipe(recipe, "k", "010") == 10
    assert of_recipe(recipe, "tokens", "1:30") is UsageError
    assert of_recipe(recipe, "hook", "no") == "no"


def test_a_written_config_is_read_back(tmp_path: Path):
    written = Config(
        cache="null", out="~", hook="null", k=7, lr=1e-5, prefixes=(2, 4), penalty="none",
        wandb=True,
    )  # fmt: skip
    config.write(written, tmp_path / "config.yaml")
    read = config.read(tmp_path / "config.yaml")
    assert read == written and read.target is None


def test_lists_are_tuples_and_prefixes_may_be_lists_of_them(tmp_path: Path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("k: [4, 8]\nprefixes: [[2, 4], [8]]\nlr: [1e-3, null]\n")
    assert config.values(recipe) == {"k": (4, 8), "prefixes": ((2, 4), (8,)), "lr": (0.001, None)}
    recipe.write_text("prefixes: 8\n")
    assert config.values(recipe) == {"prefixes": (8,)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k: 4\nk: 8\n", "gives k twice"),
        ("k: {a: 1}\n", "k is no value"),
        ("k: [[[1]]]\n", "k is no value"),
        ("k: [[1]]\n", "a list of lists"),
        ("prefixes: &a [*a]\n", "no value"),
        ("? [1]\n: 2\n", "is no value"),
        ("- k\n", "is no recipe"),
        ("k\n", "is no recipe"),
        ("cache: !!python/object/apply:os.system [ls]\n", "cache is no value"),
        ("k: [1\n", "cannot read the recipe"),
        ("[" * 2000, "cannot read the recipe"),
        ("tokens: 5k\n", "tokens: '5k' is no whole number such as 2000000 or 2e6"),
        ("k: ''\n", "k: '' is no whole number"),
        ("loss: matryoshkaa\n", "loss: 'matryoshkaa' is none of plain, matryoshka, hierarchical"),
        ("lr: high\n", "lr: 'high' is no number"),
    ],
)
def test_what_is_no_recipe_is_refused(text: str, message: str, tmp_path: Path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text)
    with pytest.raises(UsageError) as error:
        config.read(recipe)
    assert message in str(error.value) and str(recipe) in str(error.value)
