"""What a training leaves when it is killed, interrupted, resumed otherwise than it was begun, or
started twice."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import training
from apps.cli import demo, main
from saelab import SAE, locks
from saelab.errors import FailedRun, UsageError
from saelab.files import read_json, write_json
from saelab.runs import RunFolder
from tests.conftest import HOOK, make_cache
from tests.faults.kills import differing
from tests.killing import run as run_in_fork
from training import checkpoint, loop, rate, record

N_STEPS = 30


@pytest.fixture(scope="module")
def config(tiny_cache: Path) -> training.Config:
    """30 steps with a checkpoint after each 8 and a row of metrics after each 3."""
    return training.Config(
        cache=str(tiny_cache),
        hook=HOOK,
        features=64,
        k=4,
        tokens=N_STEPS * 128,
        batch=128,
        checkpoint_every=8,
        log_every=3,
    )


@pytest.fixture(scope="module")
def whole(config: training.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody interrupts."""
    return training.train(replace(config, out=str(tmp_path_factory.mktemp("whole") / "run")))


def options(config: training.Config, out: Path, *more: str) -> list[str]:
    """The command line that trains a config."""
    names = ("cache", "hook", "features", "k", "tokens", "batch", "checkpoint_every", "log_every")
    pairs = [(f"--{name.replace('_', '-')}", str(getattr(config, name))) for name in names]
    return ["train", "--out", str(out), *(word for pair in pairs for word in pair), *more]


def at_step(number: int, act: Callable[[], None]) -> Callable[..., None]:
    """A progress callback that acts after one step."""
    return lambda step, *_: act() if step == number else None


def die() -> None:
    """Without any warning."""
    os.kill(os.getpid(), signal.SIGKILL)


def killed(configs: training.Config | list[training.Config], step: int) -> None:
    """Train in a fork that is killed after a step."""
    run_in_fork(lambda: training.train(configs, resume=True, progress=at_step(step, die)))


def differs(out: Path, whole: Path) -> list[str]:
    """What differs between two runs, their names apart."""
    named = {"config.yaml", "sae/sae.json"}  # where the run and its cache lie
    return [name for name in differing(out, whole) if name not in named]


def test_rows_survive_a_second_kill_before_the_next_row(config, whole: Path, tmp_path: Path):
    mine = replace(config, out=str(tmp_path / "run"))
    for step in (20, 17, 17):
        killed(mine, step)
        assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) >= 6
    training.train(mine, resume=True)
    assert differs(tmp_path / "run", whole) == []


class Rewriting(record.Record):
    """A record that writes the rows it keeps anew, into a buffer."""

    def __init__(self, run: Path, config: training.Config, first_step: int) -> None:
        super().__init__(run, config, first_step)
        self.file.close()
        kept = (run / "metrics.jsonl").read_bytes()
        self.file = (run / "metrics.jsonl").open("wb")
        self.file.write(kept)


def test_a_record_that_writes_its_rows_anew_would_be_caught(
    config, whole: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(loop, "Record", Rewriting)
    mine = replace(config, out=str(tmp_path / "run"))
    for step in (20, 17):
        killed(mine, step)
    training.train(mine, resume=True)
    assert differs(tmp_path / "run", whole) == ["metrics.jsonl"]


def sweep(config: training.Config, place: Path) -> list[training.Config]:
    """Two runs of one pass."""
    return [replace(config, out=str(place / f"k{k}"), k=k) for k in (4, 3)]


def test_a_sweep_killed_between_its_checkpoints_goes_on_from_the_newest_step_of_all(
    config, whole: Path, tmp_path: Path, monkeypatch
):
    both, steps, save = sweep(config, tmp_path), [], checkpoint.save

    def save_twice(folder: Path, step: int, *run: Any) -> None:
        save(folder, step, *run)
        if step == 16:
            die()

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save_twice)
        run_in_fork(lambda: training.train(both))
    held = [checkpoint.steps(tmp_path / name / "checkpoints") for name in ("k4", "k3")]
    assert held == [[8, 16], [8]]
    training.train(both, resume=True, progress=lambda step, *_: steps.append(step))
    assert steps == list(range(9, N_STEPS + 1))
    assert differs(tmp_path / "k4", whole) == []


def test_a_run_killed_while_it_drops_old_checkpoints_drops_them_when_resumed(
    config, whole: Path, tmp_path: Path, monkeypatch
):
    mine = replace(config, out=str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "prune", lambda _, every, n_steps: None)
        run_in_fork(lambda: training.train(mine, progress=at_step(N_STEPS, die)))
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [8, 16, 24, 30]
    training.train(mine, resume=True)
    assert differs(tmp_path / "run", whole) == []


def test_runs_without_a_common_checkpoint_are_refused_with_their_steps(config, tmp_path: Path):
    both = sweep(config, tmp_path)
    training.train(both)
    for step in checkpoint.steps(tmp_path / "k3" / "checkpoints"):
        (tmp_path / "k3" / "checkpoints" / f"step-{step:08d}.safetensors").unlink()
    with pytest.raises(FailedRun, match=r"different steps: \[24, 30\]; resume each by itself"):
        training.train(both, resume=True)
    assert checkpoint.steps(tmp_path / "k4" / "checkpoints") == [24, 30]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_writes_a_checkpoint_and_ends_with_one_line(
    config, whole: Path, tmp_path: Path, monkeypatch, capsys, number: int
):
    out, step = tmp_path / "run", loop.Run.step

    def interrupted(run: loop.Run, *batch: Any) -> loop.Step:
        if run.n_done == 10:
            os.kill(os.getpid(), number)
        return step(run, *batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "step", interrupted)
        assert main(options(config, out)) == 130
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == (
        "saelab train: interrupted after step 11 of 30, its checkpoint is written: repeat the "
        "command, `train` with --resume, to go on"
    )
    assert checkpoint.steps(out / "checkpoints") == [8, 11]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert main(options(config, out, "--resume")) == 0
    assert differs(out, whole) == []


def test_a_demo_goes_on_where_it_was_killed_and_spares_a_finished_one(
    config, whole: Path, tmp_path: Path
):
    both = sweep(config, tmp_path)
    killed(both, 20)
    demo._train(both)
    assert differs(tmp_path / "k4", whole) == []
    (tmp_path / "k4" / "features.db").touch()
    with pytest.raises(UsageError, match="holds a demo that has ended"):
        demo._check_place(tmp_path / "k4")


def test_sigterm_ends_any_verb_as_ctrl_c_does(monkeypatch, capsys):
    from apps.cli import bench

    monkeypatch.setattr(bench, "run", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["bench"]) == 130
    assert capsys.readouterr().err == "saelab bench: interrupted\n"


def test_a_longer_run_goes_on_under_its_own_schedule_and_says_so(
    config, whole: Path, tmp_path: Path, capsys
):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    longer = replace(config, tokens=2 * config.tokens)
    with pytest.raises(UsageError, match=r"another configuration.*tokens: 7680 / 3840"):
        training.train(replace(longer, out=str(out)), resume=True)
    write_json(
        out / "report.json", {"schema": "saelab/report/1", "sae": RunFolder(out).sae_digest()}
    )
    assert main(options(longer, out, "--resume")) == 0
    assert f"{out}: of an earlier SAE are report.json" in capsys.readouterr().err
    rows = rate.rows(out)
    assert [row["step"] for row in rows[-2:]] == [57, 60] and rows[-1]["tokens"] == 7680
    constant = longer.learning_rate(32)
    assert [row["lr"] for row in rows if row["step"] in (33, 39)] == pytest.approx([constant] * 2)
    lengths = [{"from_step": 0, "tokens": 3840}, {"from_step": 30, "tokens": 7680}]
    assert read_json(out / "training.json")["lengths"] == lengths
    assert SAE.load(out).origin.more["lengths"] == lengths
    assert main(options(config, out, "--resume")) == 2
    assert "has done 60 steps, tokens=3840 are 30" in capsys.readouterr().err


def test_what_does_not_change_the_result_may_change(config, whole: Path, tmp_path: Path):
    mine = replace(config, out=str(tmp_path / "run"))
    killed(mine, 20)
    alias = "blocks.0.hook_out"  # another name of the same hook
    training.train(replace(mine, checkpoint_every=5, hook=alias), resume=True)
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [25, 30]
    weights = "sae/sae.safetensors"
    assert (tmp_path / "run" / weights).read_bytes() == (whole / weights).read_bytes()


def test_other_activations_are_refused_wherever_they_lie(
    config, whole: Path, tiny_cache: Path, tiny_model: Path, tiny_corpus: Path, tmp_path: Path
):
    moved = shutil.copytree(tiny_cache, tmp_path / "moved")
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    here = replace(config, out=str(out), cache=str(moved))
    training.train(here, resume=True)
    shutil.rmtree(moved)
    make_cache(tiny_model, tiny_corpus, moved, n_tokens=8000)
    with pytest.raises(UsageError, match=r"was begun on other activations than .*moved now holds"):
        training.train(here, resume=True)


def test_a_second_writer_is_refused_with_the_first_ones_number(config, tmp_path: Path, capsys):
    out = tmp_path / "run"
    with locks.only_writer(out):
        assert main(options(config, out)) == 2
    said = capsys.readouterr().err
    assert f"{out} is being written by process {os.getpid()} on " in said
    assert not out.exists()


def test_the_lock_of_a_dead_process_keeps_nobody_out(config, tmp_path: Path):
    out = tmp_path / "run"
    out.mkdir()
    (out / locks.NAME).write_text("1 on elsewhere")
    training.train(replace(config, out=str(out)))
    assert not (out / locks.NAME).exists()


@pytest.mark.parametrize("before", ["config.yaml", "training.json"])
def test_a_start_that_was_killed_blocks_no_folder(
    config, whole: Path, tmp_path: Path, monkeypatch, before: str
):
    mine = replace(config, out=str(tmp_path / "run"))
    rename = Path.replace

    def dying(path: Path, target: Path) -> Path:
        return die() or rename(path, target) if target.name == before else rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        run_in_fork(lambda: training.train(mine))
    assert f".{before}." in " ".join(path.name for path in (tmp_path / "run").iterdir())
    training.train(mine)
    assert differs(tmp_path / "run", whole) == []
