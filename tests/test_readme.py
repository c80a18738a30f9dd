"""The README's first minute, at a twentieth of its size: the commands exist, run, and print what
the README shows."""

import contextlib
import io
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from apps.cli import VERBS, main
from saelab.evaluation import rows
from tests.conftest import ROOT
from training import recipes

README = (ROOT / "README.md").read_text()


def test_make_clean_leaves_what_was_trained():
    rule = re.search(r"^clean:\n((?:\t.*\n?)+)", (ROOT / "Makefile").read_text(), re.M)
    assert rule and rule[1].split() == ["rm", "-rf", "$(VENV)", "build", "dist"]


@pytest.fixture(scope="module")
def printed(bundled: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run of a small demo with an eighth of its features, and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "demo"
    recipe = replace(recipes.read("demo"), features=512)
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as stdout,
    ):
        patch.setattr(recipes, "read", lambda name: recipe)
        assert main(["demo", "--out", str(out), "--tokens", "110k", "--no-browse"]) == 0
    return out, stdout.getvalue()


@pytest.fixture(scope="module")
def demo(printed: tuple[Path, str]) -> Path:
    """The run of a small demo."""
    return printed[0]


def shape(text: str) -> list[str]:
    """The lines of an output with every number as `#` and every run of blanks as one."""
    masked = re.sub(r"-?\d[\d,.]*(e[-+]\d+)?", "#", text)
    return [" ".join(line.split()) for line in masked.splitlines() if line.strip()]


def shown(readme: str) -> str:
    """The demo's output in a README, up to the browser's address."""
    (block,) = re.findall(r"```\n(== capture.*?)saelab browser:", readme, re.DOTALL)
    return block


def printable(output: str, readme: str) -> str:
    """What was printed without the metrics that the README may leave out: those that are no
    headline and that it does not name."""
    labels = [row.label for row in rows.table().values() if not row.headline]
    left_out = tuple(f"{label} " for label in labels if f"\n{label} " not in readme)
    return "".join(line for line in output.splitlines(True) if not line.startswith(left_out))


def test_the_demo_leaves_two_runs_a_report_and_an_index(demo: Path):
    assert {p.name for p in demo.iterdir()} == {
        "checkpoints",
        "compare-demo-seed1.json",
        "config.yaml",
        "features.db",
        "metrics.jsonl",
        "report.json",
        "sae",
        "training.json",
    }
    assert (demo.parent / "demo-seed1" / "sae" / "sae.json").exists()
    assert (demo.parent / "demo-seed1" / "features.db").exists()
    assert (demo.parent / "demo-cache" / "manifest.json").exists()


def test_a_second_demo_in_the_same_place_is_refused(demo: Path, capsys: pytest.CaptureFixture):
    assert main(["demo", "--out", str(demo), "--tokens", "110k", "--no-browse"]) == 2
    printed = capsys.readouterr()
    assert "holds a demo that has ended" in printed.err.splitlines()[-1]
    assert "capture" not in printed.out  # nothing was done before


def test_a_demo_among_other_files_is_refused_before_the_capture(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    assert main(["demo", "--out", str(tmp_path / "mine"), "--no-browse"]) == 2
    assert "already holds other files" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_readme_shows_what_the_demo_prints(printed: tuple[Path, str]):
    out, output = printed
    block = shown(README)
    output = printable(output.replace(str(out), "runs/demo"), block)
    assert shape(block) == shape(output)


def test_a_metric_that_is_no_headline_may_be_missing_in_the_readme():
    block = "FVU   0.1\ncosine   0.9\n"
    output = "FVU   0.2\ncosine   0.8\nunseen features   0.3\nCE recovered   0.7\n"
    assert printable(output, f"\n{block}") == output.replace("unseen features   0.3\n", "")


def test_a_readme_that_shows_something_else_is_caught(printed: tuple[Path, str]):
    out, output = printed
    for label in ("CE recovered (mean ablation)", "pca ", "held-out tokens at"):
        stale = shown(README).replace(label, "something")
        output = printable(output.replace(str(out), "runs/demo"), stale)
        assert shape(stale) != shape(output), label


def test_the_readmes_python_runs_on_the_demos_run(demo: Path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(code.replace('"runs/demo"', repr(str(demo))), names)
    assert names["x_hat"].shape == names["x"].shape == (1024, 256)
    assert len(names["code"].values) == 32 * 1024


def test_every_command_of_the_readme_parses(monkeypatch: pytest.MonkeyPatch):
    from apps.cli.parsing import parse

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
