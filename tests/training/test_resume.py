"""A training run killed anywhere and resumed ends with the same weights, bit for bit."""

import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import training
from saelab import SAE
from saelab.kernels.cpu import probe
from tests.conftest import HOOK, ROOT
from training import checkpoint

rng = random.Random(11)
POINTS = sorted(rng.randint(2, 118) for _ in range(5))
CHILD = """
import sys, torch, training
from training.config import read
torch.set_num_threads(1)
config = read(sys.argv[1])
training.train(config, resume=True, progress=lambda step, n, done: print(step, flush=True))
"""


@pytest.fixture(scope="module")
def config(tiny_cache: Path) -> training.Config:
    """120 steps with dead features, AuxK and three checkpoints on the way."""
    options = {
        "features": 512,
        "k": 4,
        "tokens": 30_720,
        "batch": 256,
        "lr": 0.003,
        "dead_window": 500,
    }
    return training.Config(
        cache=str(tiny_cache), hook=HOOK, checkpoint_every=25, log_every=1, **options
    )


@pytest.fixture(scope="module")
def whole(config: training.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    out = training.train(replace(config, out=str(tmp_path_factory.mktemp("whole") / "run")))
    rows = (out / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 120 and '"aux": 0.0,' not in rows[60], "the run must exercise AuxK"
    return out


def final_state(run: Path) -> dict[str, torch.Tensor]:
    """SAE and last checkpoint: weights, Adam's moments and dead counters."""
    last = max((run / "checkpoints").glob("*.safetensors"))
    return load_file(run / "sae" / "sae.safetensors") | load_file(last)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("step", POINTS)
def test_a_killed_run_resumes_to_the_same_weights(
    config: training.Config, whole: Path, tmp_path: Path, step: int
):
    out = tmp_path / "run"
    killed = replace(config, out=str(out))
    training.config.write(killed, tmp_path / "config.yaml")
    command = [sys.executable, "-c", CHILD, str(tmp_path / "config.yaml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= step:
                child.send_signal(signal.SIGKILL)
                break
    assert not (out / "sae").exists()
    training.train(killed, resume=True)
    assert same(final_state(out), final_state(whole))
    steps = [line.split(",")[0] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [f'{{"step": {n}' for n in range(1, 121)]


def test_another_data_order_would_be_caught(config: training.Config, whole: Path, tmp_path: Path):
    other = training.train(replace(config, out=str(tmp_path / "run"), order_seed=1))
    assert not same(final_state(other), final_state(whole))


def test_auxk_is_resumed_in_the_dtype_it_was_begun_in(
    config: training.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = str(tmp_path / "run")
    config = replace(config, out=out, checkpoint_every=10, tokens=20 * 256)

    def resumed(name: str) -> dict[str, torch.Tensor]:
        def interrupt(step: int, *_: object) -> None:
            if step == 12:
                raise KeyboardInterrupt

        again = replace(config, out=f"{config.out}-{name}")
        with probe.screening(torch.bfloat16), pytest.raises(KeyboardInterrupt):
            training.train(again, progress=interrupt)
        with probe.screening(torch.float32):  # as the probe may find another time
            training.train(again, resume=True)
        return SAE.load(again.out).state_dict()

    with probe.screening(torch.bfloat16):
        whole = SAE.load(training.train(config)).state_dict()
    assert torch.equal(resumed("kept")["W_dec"], whole["W_dec"])
    load = checkpoint.load
    unrecorded = lambda *a: {k: v for k, v in load(*a).items() if k != "aux_bfloat16"}  # noqa: E731
    monkeypatch.setattr(checkpoint, "load", unrecorded)
    assert not torch.equal(resumed("forgotten")["W_dec"], whole["W_dec"])
