"""What is refused is refused before the work, and leaves nothing behind."""

import shutil
from pathlib import Path

import pytest

import training
from apps.cli import capture, main
from saelab import models
from saelab.errors import FailedRun
from saelab.files import undone
from tests.conftest import HOOK
from training import loop


def words(*parts: object) -> list[str]:
    """A command line."""
    return [str(part) for part in parts]


def last_line(capsys: pytest.CaptureFixture) -> str:
    """What the user reads last on standard error."""
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture
def command(tiny_cache: Path, tmp_path: Path) -> list[str]:
    """A training that works."""
    options = ("--features", 64, "--k", 4, "--tokens", 2560, "--batch", 256)
    return words("train", "--cache", tiny_cache, "--hook", HOOK, *options, "--out", tmp_path / "r")


def test_a_batch_larger_than_the_cache_is_refused(command: list[str], tmp_path: Path, capsys):
    assert main([*command, "--batch", "20000", "--tokens", "40k"]) == 2
    assert "batch=20000 is more than the 14" in last_line(capsys)
    assert list(tmp_path.iterdir()) == []
    assert main(command) == 0


@pytest.mark.parametrize("existing", [False, True])
def test_a_training_that_fails_at_its_first_step_leaves_nothing(
    command: list[str], existing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if existing:
        (tmp_path / "r").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "step", broken)
        assert main(command) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert main(command) == 0


def broken(self: object, *_: object) -> None:
    """A step that fails."""
    raise FailedRun("the loss is nan at step 1")


def test_what_a_block_has_made_is_taken_back_unless_it_is_kept(tmp_path: Path):
    mine, deep = tmp_path / "mine", tmp_path / "a" / "b"
    mine.mkdir()
    (mine / "old").write_text("")
    for kept in (False, True):
        with pytest.raises(KeyboardInterrupt), undone(mine, deep) as keep:
            deep.mkdir(parents=True)
            (mine / "new").mkdir()
            if kept:
                keep()
            raise KeyboardInterrupt
        assert ((mine / "new").exists(), deep.exists()) == (kept, kept)
        assert (mine / "old").exists() and (tmp_path / "a").exists() == kept


@pytest.fixture
def unfinished(tiny_run: Path, tmp_path: Path) -> Path:
    """A run whose training was killed."""
    of_training = shutil.ignore_patterns("sae", "report.json")
    return Path(shutil.copytree(tiny_run, tmp_path / "unfinished", ignore=of_training))


def test_unfinished_runs_among_several_are_left_out(
    tiny_run: Path, unfinished: Path, tmp_path: Path, capsys
):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    assert main(words("eval", unfinished, run, "--tokens", 600)) == 0
    said = capsys.readouterr().err
    assert f"left out, as the training has not finished: {unfinished};" in said
    assert (run / "report.json").is_file() and not (unfinished / "report.json").exists()
    assert main(words("eval", unfinished)) == 2
    assert f"{unfinished}: the training has not finished; `saelab train --re" in last_line(capsys)


WRITERS = [[verb, "--out", "{run}/config.yaml/new"] for verb in ("circuits", "demo", "reproduce")]
WRITERS += [["train", "--cache", "c", "--out", "{run}/config.yaml"]]
WRITERS += [["capture", "--out", "{run}/config.yaml"]]
WRITERS += [["dark-matter", "{run}", "--errors", "{run}/config.yaml"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["eval", "{run}", "--probe"], "holds no Python source"),
        *((verb, "config.yaml is a file, give a folder") for verb in WRITERS),
        (["capture", "--hook", HOOK, "--tokens", "500", "--held-out", "500"], "leaves none"),
        (["capture"], "no hook named"),
        (["capture", "--hook", HOOK, "--dtype", "int4"], "int4"),
        (["demo", "--tokens", "1000"], "tokens=801 is less than one batch of 1024"),
    ],
)
def test_it_is_said_before_a_model_loads(
    line: list[str], message: str, tiny_run: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.setattr(models, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.chdir(tmp_path)
    assert main([word.format(run=tiny_run) for word in line]) == 2
    assert message in last_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_python_callers_are_checked_too(tiny_cache: Path, tmp_path: Path):
    wrong = training.Config(cache=str(tiny_cache), out=str(tmp_path / "r"), hook=HOOK, log_every=0)
    with pytest.raises(ValueError, match="log_every=0: give a whole number of at least 1"):
        training.train(wrong)
    assert capture.Args().n_tokens == 2_000_000 and list(tmp_path.iterdir()) == []
