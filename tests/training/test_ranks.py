"""Several ranks train as one process does: processes that talk over gloo, against one on the same
batches."""

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import training
from saelab import SAE, ranks
from saelab.errors import FailedRun, UsageError
from tests import several
from tests.conftest import HOOK
from training import checkpoint, collectives, distributed, rate, shards
from training.sharded import Sharded


@pytest.fixture
def config(tiny_cache: Path, tmp_path: Path) -> training.Config:
    """40 steps, on the way of which features die and AuxK works, in float64."""
    options: dict[str, Any] = {"features": 70, "k": 4, "tokens": 40 * 128, "batch": 128}
    options |= {"dead_window": 300, "calibration": 2000, "log_every": 10, "dtype": "float64"}
    where = {"cache": str(tiny_cache), "out": str(tmp_path / "one"), "hook": HOOK}
    return training.Config(**where, **options, checkpoint_every=10)


def losses(config: training.Config) -> list[float]:
    """The unrounded loss of every step of a run."""
    every: list[float] = []
    training.train(config, progress=lambda _, __, steps: every.append(float(steps[0].loss)))
    return every


def off(config: training.Config, n: int, *patch: Any) -> float:
    """By how much a loss on n ranks, with something replaced there, is off that of one process at
    most, relative."""
    many = replace(config, out=f"{config.out}-{n}")
    work = partial(losses, many)
    by_rank = several.results(n, several.patched(work, *patch) if patch else work)
    assert all(curve == by_rank[0] for curve in by_rank)
    one = losses(config)
    return max(abs(a - b) / b for a, b in zip(by_rank[0], one, strict=True))


RUNS = [
    {"sparsify": "batchtopk", "ema": 0.9, "clip": 0.5, "revive": True, "encoder": "fitted"},
    {"sparsify": "feature-choice", "shares": "zipf", "mutual": 0.3},
    {"sparsify": "jumprelu"},
    {"sparsify": "abstopk", "loss": "matryoshka", "layout": "replicated", "revive": True},
    {"sparsify": "topk", "loss": "matryoshka", "clip": 0.5},
]


@pytest.mark.parametrize("fields", RUNS, ids=str)
def test_float64_losses_are_one_processs(config: training.Config, fields: dict):
    config = replace(config, **fields)
    assert off(config, 2) < 1e-10
    mine, theirs = (SAE.load(path).state_dict() for path in (f"{config.out}-2", config.out))
    for name in theirs:  # inference levels among them
        torch.testing.assert_close(mine[name], theirs[name])


def test_200_steps_of_float64_on_four_ranks_are_one_processs(config: training.Config):
    assert off(replace(config, tokens=200 * 128, checkpoint_every=200), 4) < 1e-10


def test_50_steps_of_float32_are_one_processs_to_1e_4(config: training.Config):
    config = replace(config, tokens=50 * 128, dtype="float32", backend="reference")
    assert off(config, 2) < 1e-4


def test_a_gradient_that_is_not_added_up_is_caught(config: training.Config):
    with pytest.raises(AssertionError):
        assert off(config, 2, Sharded, "shares", lambda self, name: False) < 1e-10


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.fixture
def plain(config: training.Config) -> training.Config:
    """The run in float32, which a configuration may name; without AuxK, whose choices among dead
    features make much of a rounding."""
    return replace(config, dtype="float32", backend="reference", aux=0.0)


def until(config: training.Config, step: int, n: int) -> None:
    """Go on with a run on n ranks, and end it after a step without a last checkpoint."""

    def stop(number: int, *_: object) -> None:
        if number == step:
            raise KeyboardInterrupt

    def work() -> None:
        training.train(config, resume=True, progress=stop)

    outcomes = several.outcomes(n, work)
    assert all(isinstance(each, KeyboardInterrupt) for each in outcomes), outcomes


def test_what_four_ranks_saved_two_and_one_go_on_with(plain: training.Config):
    one = losses(plain)
    many = replace(plain, out=f"{plain.out}-many")
    folder = Path(many.out) / "checkpoints"
    until(many, 12, 4)
    whole = checkpoint.load(folder, 10)
    for n in (2, 4):
        parts = several.results(n, lambda: part_of(many, folder, 10))
        assert torch.equal(torch.cat([part["sae.W_enc"] for part in parts]), whole["sae.W_enc"])
    until(many, 22, 2)
    assert checkpoint.steps(folder) == [10, 20]
    training.train(many, resume=True)
    rows = rate.rows(Path(many.out))
    assert [row["step"] for row in rows] == [1, 10, 20, 30, 40]
    assert [row["loss"] for row in rows] == pytest.approx([one[n - 1] for n in (1, 10, 20, 30, 40)])
    two = several.results(2, lambda: part_of(many, folder, 40))  # of one process's
    assert [len(part["adam.W_dec.first"]) for part in two] == [35, 35]


def part_of(config: training.Config, folder: Path, step: int) -> dict[str, Tensor]:
    """This rank's part of a checkpoint."""
    with ranks.joined():
        return checkpoint.load(folder, step, distributed.of(config).part)


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_a_ranks_file_that_is_missing_or_altered_is_named(plain: training.Config, damage: str):
    until(plain, 10, 2)
    (file,) = (Path(plain.out) / "checkpoints/step-00000010").glob("shard-00002-*")
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    sentence = rf"{file.name} of .*step-00000010.* {damage}.*to go on from the one before"
    with pytest.raises(FailedRun, match=sentence):
        training.train(plain, resume=True)
    told = several.outcomes(2, lambda: training.train(plain, resume=True))
    said = [each for each in told if isinstance(each, FailedRun)]
    assert len(said) == 1 and file.name in str(said[0])
    assert any(isinstance(each, ranks.Told) for each in told)


def test_a_rank_killed_while_it_saves_leaves_the_checkpoint_before(plain: training.Config):
    write = shards.write

    def dying(*arguments: Any, **options: Any) -> None:
        if ranks.rank() == 1 and (Path(plain.out) / "checkpoints/step-00000010").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        write(*arguments, **options)

    def work() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shards, "write", dying)
            training.train(plain)

    first, second = several.outcomes(2, work)
    assert second is None and "rank 1 of 2 ended without a word" in str(first)
    assert isinstance(first, FailedRun) and "--resume" in str(first)
    left = [path.name for path in (Path(plain.out) / "checkpoints").iterdir()]
    assert left == ["step-00000010"]


# --- what ranks cannot do ------------------------------------------------------------------------


def test_ranks_that_disagree_are_told_the_field(config: training.Config):
    def work() -> None:
        training.train(replace(config, k=3 + ranks.rank()))

    told = several.outcomes(2, work)
    assert isinstance(told[0], UsageError) and isinstance(told[1], ranks.Told)
    assert "the ranks disagree on the configuration: k is 3 on rank 0 and 4 on rank 1" in str(told)
    assert not Path(config.out).exists()


REFUSED = {
    "3 ranks cannot share out a batch of 128 tokens evenly: --batch 129": {},
    "4 features in shards of 2 leave nothing": {
        "batch": 129,
        "features": 4,
        "k": 2,
        "layout": "sharded",
    },
    "--layout replicated": {"batch": 129, "loss": "hierarchical", "layout": "sharded"},
    "--layout sharded": {"batch": 129, "sparsify": "feature-choice", "layout": "replicated"},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_ranks_cannot_share_is_refused(
    config: training.Config, monkeypatch: pytest.MonkeyPatch, sentence: str
):
    monkeypatch.setattr(ranks, "world", lambda: 3)
    problems = distributed.problems(replace(config, **REFUSED[sentence]), 3)
    assert sentence in next(problems)


def test_the_layout_follows_the_batch_and_the_sparsifier(config: training.Config):
    assert distributed.name(replace(config, batch=209)) == "sharded"
    assert distributed.name(replace(config, batch=210)) == "replicated"
    assert distributed.name(replace(config, batch=210, sparsify="feature-choice")) == "sharded"
    assert distributed.name(replace(config, loss="hierarchical")) == "replicated"


# --- how much they exchange ----------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["sharded", "replicated"])
def test_the_bytes_of_a_step_are_those_of_the_formula(config: training.Config, layout: str):
    config = replace(config, layout=layout, dtype="float32", dead_window=10_000, tokens=128 * 11)

    def work() -> dict[str, int]:
        before: dict[str, int] = {}

        def note(step: int, *_: object) -> None:
            if step == 1:
                before.update(collectives.sent)
            if step == 2:
                before.update({k: collectives.sent[k] - before.get(k, 0) for k in collectives.sent})
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            training.train(config, progress=note)
        return {name: n for name, n in before.items() if n}

    (first, _) = several.results(2, work)
    assert first == distributed.step_bytes(config, d_model=32, n_ranks=2)
