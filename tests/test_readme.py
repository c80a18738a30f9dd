"""The README's first minute, at a twentieth of its size: the commands exist, run, and print what
the README shows."""

import re
import shlex
from pathlib import Path

import pytest

from apps.cli import VERBS, main
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def stages(text: str) -> list[str]:
    """The announced stages of a demo."""
    return re.findall(r"^== (\w+):", text, re.MULTILINE)


@pytest.fixture(scope="module")
def demo(bundled: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a small demo."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    assert main(["demo", "--out", str(out), "--tokens", "110k", "--no-browse"]) == 0
    return out


def test_the_demo_leaves_two_runs_a_report_and_an_index(demo: Path):
    assert {p.name for p in demo.iterdir()} == {
        "checkpoints",
        "config.yaml",
        "features.db",
        "metrics.jsonl",
        "report.json",
        "sae",
    }
    assert (demo.parent / "demo-seed1" / "sae" / "sae.json").exists()
    assert (demo.parent / "demo-cache" / "manifest.json").exists()


def test_a_second_demo_in_the_same_place_is_refused(demo: Path, capsys: pytest.CaptureFixture):
    assert main(["demo", "--out", str(demo), "--tokens", "110k", "--no-browse"]) == 2
    assert "already holds another run" in capsys.readouterr().err.strip().splitlines()[-1]


def test_the_readme_shows_what_the_demo_prints():
    assert stages(README) == ["capture", "train", "eval", "index"]
    for words in (
        "training and",
        "held-out tokens at blocks.1.hook_out",
        "FVU",
        "CE recovered",
        "identity",
        "done in",
    ):
        assert words in README, words


def test_the_readmes_python_runs_on_the_demos_run(demo: Path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(code.replace('"runs/demo"', repr(str(demo))), names)
    assert names["x_hat"].shape == names["x"].shape == (1024, 256)
    assert len(names["code"].values) == 32 * 1024


def test_every_command_of_the_readme_parses(monkeypatch: pytest.MonkeyPatch):
    from apps.cli import parse

    commands = [
        shlex.split(line) for line in re.findall(r"^\.venv/bin/saelab (.*)$", README, re.MULTILINE)
    ]
    assert {command[0] for command in commands} == set(VERBS) - {"demo"}
    for verb, *argv in commands:
        parse(verb, argv)
    monkeypatch.chdir(ROOT)
    makefile = (ROOT / "Makefile").read_text()
    assert all(
        f"{target}:" in makefile for target in re.findall(r"^make (\w+)", README, re.MULTILINE)
    )
