"""Training on another device than the CPU, on a pretend one that refuses what a card refuses."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch

import training
from apps.cli import main
from saelab import SAE
from saelab.kernels import backend
from tests.conftest import HOOK
from tests.pretend import pretend_accelerator
from training import fused, rate, updates, updating
from training import run as run_
from training.counters import Counters

FORMS = {
    "topk": {},
    "batchtopk": {"ema": 0.9},
    "feature-choice": {"shares": "zipf", "mutual": 0.3},
    "jumprelu": {},
    "abstopk": {"loss": "matryoshka"},
}


@pytest.fixture
def config(tiny_cache: Path, tmp_path: Path) -> training.Config:
    """A short run, some of whose features die."""
    options = {"features": 128, "k": 4, "tokens": 5120, "batch": 256, "dead_window": 512}
    where = {"cache": str(tiny_cache), "out": str(tmp_path / "run"), "hook": HOOK}
    return training.Config(**where, **options, backend="reference", calibration=2000)


@pytest.mark.parametrize("sparsify", FORMS)
def test_a_run_on_another_device_is_that_on_the_cpu(
    sparsify: str, config: training.Config, tmp_path: Path
):
    config = replace(config, sparsify=sparsify, **FORMS[sparsify])
    away = replace(config, out=str(tmp_path / "away"), device="pretend")
    with pretend_accelerator():
        there = training.train(away)
    with backend("reference"):  # as of any device without kernels of its own, levels included
        here = training.train(config)
        mine, theirs = (SAE.load(folder).state_dict() for folder in (there, here))
    assert (there / "metrics.jsonl").read_bytes() == (here / "metrics.jsonl").read_bytes()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs) and mine


def test_a_run_goes_on_where_it_was_interrupted_on_another_device(
    config: training.Config, tmp_path: Path
):
    config = replace(config, checkpoint_every=8)
    whole = training.train(config)

    def interrupt(step: int, *_: object) -> None:
        if step == 12:
            raise KeyboardInterrupt

    away = replace(config, out=str(tmp_path / "away"), device="pretend")
    with pretend_accelerator():
        with pytest.raises(KeyboardInterrupt):
            training.train(away, progress=interrupt)
        training.train(away, resume=True)
    mine, theirs = (rate.rows(path) for path in (tmp_path / "away", whole))
    assert mine == theirs


def test_a_tensor_that_stays_on_the_cpu_is_caught(
    config: training.Config, monkeypatch: pytest.MonkeyPatch
):
    def astray(config: training.Config, layers: int) -> Counters:
        return Counters(replace(config, device="cpu"), layers)

    monkeypatch.setattr(run_, "Counters", astray)
    with pretend_accelerator(), pytest.raises(RuntimeError, match="same device"):
        training.train(replace(config, device="pretend"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_here_is_refused_before_anything_is_made(
    config: training.Config, capsys: pytest.CaptureFixture
):
    line = ["--cache", config.cache, "--out", config.out, "--hook", HOOK, "--device", "cuda"]
    assert main(["train", *line]) == 2
    assert "there is no device 'cuda' here" in capsys.readouterr().err.splitlines()[-1]
    assert not Path(config.out).exists()


def test_what_others_screened_is_not_counted_as_a_steps(config: training.Config):
    first = training.train(
        replace(config, sparsify="batchtopk")
    )  # ends with a screened calibration
    assert first.is_dir()
    rows = rate.rows(training.train(replace(config, out=f"{config.out}-b")))
    assert "certified_fraction" not in rows[0]


def test_a_run_on_the_kernels_of_gpus_is_that_of_the_reference(
    config: training.Config, tmp_path: Path
):
    pytest.importorskip("triton")
    config = replace(config, features=48, batch=16, tokens=64, dead_window=16, log_every=1)
    away = replace(config, out=str(tmp_path / "there"), backend="triton", aux=1.0)
    away = replace(away, device="cuda" if torch.cuda.is_available() else "cpu")
    optimiser = updating.for_run(away, run_.new_sae(away, 32, 32))
    assert isinstance(optimiser, updates.Fused)
    assert "triton" in type(optimiser.fused).__module__
    there = rate.rows(training.train(away))
    here = rate.rows(training.train(replace(config, aux=1.0)))
    for mine, theirs in zip(there, here, strict=True):
        certified = mine.pop("certified_fraction")
        assert 0 < certified <= 1
        assert mine == pytest.approx(theirs, rel=1e-4) and theirs["aux"] >= 0
    assert len(there) == 4 and here[-1]["aux"] > 0


def test_numbers_of_a_step_are_tensors_until_a_row_is_read(config: training.Config):
    x_BD = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    step = run_.Run(config, x_BD, x_BD).step(x_BD, x_BD)
    for number in (step.loss, step.l0, step.dead, step.dense, step.terms["fvu"]):
        assert isinstance(number, torch.Tensor) and number.dim() == 0
    assert all(type(value) is float for value in step.row().values())


def test_what_serves_a_device_and_how_precise_the_products_beside_it_are(
    monkeypatch: pytest.MonkeyPatch,
):
    config, card = training.Config(), torch.device("cuda", 1)
    assert fused.backend_of(config, card) == "triton"
    assert fused.backend_of(config, torch.device("cpu")) == "cpu"
    assert fused.backend_of(config, torch.device("meta")) is None
    assert fused.backend_of(replace(config, backend="reference"), card) is None
    assert fused.aux_dtype(config, card) == torch.bfloat16
    assert fused.aux_dtype(replace(config, backend="reference"), card) == torch.float32


def test_what_two_backends_have_screened_is_read_at_once():
    for certified, (name, home) in zip((3, 1), fused.TALLIES.items(), strict=True):
        import_module(home)
        tally = import_module(name).tally
        tally.clear()
        tally.update(asked=4, certified=certified)
    assert fused.certified() == 0.25
    assert fused.certified() is None  # nothing is left for a step that screens nothing
