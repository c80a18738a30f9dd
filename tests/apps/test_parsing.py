"""The command line itself: help in groups, each default said once, an example of every verb, what
may have been meant, and completion."""

import importlib
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from apps.cli import VERBS, main, module_of, usage
from apps.cli.parsing import options, parse, saying_defaults_once
from apps.cli.verbs import GROUPS, nearest


def module(verb: str):
    return importlib.import_module(f"apps.cli.{module_of(verb)}")


def help_of(verb: str, capsys: pytest.CaptureFixture) -> str:
    """A verb's help as words, without its boxes."""
    with pytest.raises(SystemExit):
        parse(verb, ["--help"])
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())


def said_twice(text: str) -> list[str]:
    """What follows where one default is said right after another, or is nothing."""
    return re.findall(r"\(default[^()]*\) \(default.{0,20}|\(default: (?:None|'')?\)", text)


def test_every_verb_stands_in_one_group_of_the_help():
    text = usage()
    assert {verb.group for verb in VERBS.values()} == set(GROUPS)
    for name in VERBS:
        assert len(re.findall(rf"^  {name} ", text, re.MULTILINE)) == 1
    order = [name for group in GROUPS for name, verb in VERBS.items() if verb.group == group]
    assert order == list(VERBS), "VERBS are listed group by group"


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_each_default_once(verb: str, capsys: pytest.CaptureFixture):
    assert not said_twice(help_of(verb, capsys))


@dataclass(frozen=True)
class Careless:
    """Options whose help says more than it should, or less."""

    device: str | None = None
    """where (default: cpu)"""
    rate: float = 0.5
    """how fast (default: 0.5)"""


def test_a_default_that_is_said_twice_is_caught(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr("apps.cli.info.Args", Careless)
    text = help_of("info", capsys)
    assert "where (default: cpu) --rate" in text
    assert len(said_twice(text)) == 1 and "how fast (default: 0.5) (default: 0.5)" in text


def test_what_is_parsed_is_the_verbs_own_arguments():
    _, args = parse("eval", ["runs/a", "--tokens", "5k", "--no-probe"])
    assert isinstance(args, module("eval").Args) and vars(args) == vars(
        module("eval").Args(runs=(Path("runs/a"),), tokens=5000)
    )
    shape = saying_defaults_once(module("train").Args)
    assert vars(shape()) == vars(module("train").Args())


@pytest.mark.parametrize("verb", VERBS)
def test_a_verbs_help_has_an_example_that_parses(
    verb: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    docstring = module(verb).__doc__
    examples = re.findall(rf"^ *saelab {verb}(.*)$", docstring, re.MULTILINE)
    assert examples
    for example in examples:
        if "RECIPE" not in example:
            parse(verb, shlex.split(example))
    assert f"saelab {verb}{examples[0]}" in help_of(verb, capsys)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("trian", "saelab: no verb 'trian': did you mean train? `saelab --help` lists them all"),
        ("darkmatter", "saelab: no verb 'darkmatter': did you mean dark-matter?"),
        ("eval --tokns 5", "saelab eval: Unrecognized options: --tokns: did you mean --tokens?"),
        ("eval --devic=5", "--devic: did you mean --device? see saelab eval --help"),
        ("eval --no-prob", "--no-prob: did you mean --no-probe? see saelab eval --help"),
        ("train --hokk a --ft 3", "--hokk: did you mean --hook? see saelab train --help"),
        ("info a b", "saelab info: Unrecognized options: b; see saelab info --help"),
        ("browse --zzz", "saelab browse: Unrecognized options: --zzz; see saelab browse --help"),
        ("browse --no-open", "Unrecognized options: --no-open; see saelab browse --help"),
    ],
)
def test_a_word_that_is_spelt_wrong_is_answered_with_the_right_one(
    command: str, message: str, capsys: pytest.CaptureFixture
):
    assert main(command.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_word_like_no_other_is_no_guess():
    assert nearest("frobnicate", VERBS) == "" and nearest("evla", VERBS) == "eval"
    assert "runs" not in options(module("eval").Args)  # a place, not an option


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_bash_completes_verbs_and_options(tmp_path: Path):
    script = tmp_path / "saelab"
    assert main(["--tyro-write-completion", "bash", str(script)]) == 0
    assert completions(script, "saelab ev") == ["eval"]
    assert "--tokens" in completions(script, "saelab eval --to")
    assert completions(script, "saelab evl --to") == []


def completions(script: Path, typed: str) -> list[str]:
    """What bash offers for the last word that is typed."""
    words = typed.split(" ")
    listed = " ".join(f"'{word}'" for word in words)
    program = (
        f"source {script}; COMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}; "
        f"COMP_LINE='{typed}'; COMP_POINT={len(typed)}; "
        "_name=$(complete -p saelab | sed 's/.*-F \\([^ ]*\\).*/\\1/'); "
        '$_name saelab "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    answer = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    return [word.strip() for word in answer.stdout.splitlines() if word.strip()]


def test_a_shell_that_cannot_be_completed_is_refused(capsys: pytest.CaptureFixture):
    assert main(["--tyro-print-completion", "tcsh"]) == 2
    assert "name the shell, one of bash, zsh, fish" in capsys.readouterr().err


def test_a_choice_that_there_is_not_is_refused_once(capsys):
    assert main(["export", "runs/a", "--to", "pictures", "--out", "b"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.lower().count("invalid choice") == 1
    assert "'pictures'" in last and "'saelens'" in last
