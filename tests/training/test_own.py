"""Training on one's own activations: whatever holds them, the run is the same, keeps them, and is
measured and indexed without a model."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import saelab
from apps.cli import main
from saelab import SAE, Cache
from saelab.activations.given import arrays
from saelab.errors import UsageError
from training import own
from training.own import train_on

N, D = 3000, 16
OPTIONS = {"k": 3, "features": 32, "tokens": 6000, "batch": 250, "lr": 1e-2, "seed": 0}


@pytest.fixture(scope="module")
def x_ND() -> torch.Tensor:
    """Sums of a few of 24 directions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(24, D, generator=generator)
    on = torch.rand(N, 24, generator=generator) < 0.1
    return (on * torch.rand(N, 24, generator=generator)) @ directions


@pytest.fixture(scope="module")
def run(x_ND: torch.Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a tensor."""
    return train_on(x_ND, out=tmp_path_factory.mktemp("own") / "run", **OPTIONS)


def forms(x_ND: torch.Tensor) -> dict:
    """The same rows as everything that may hold them."""
    return {
        "array": x_ND.numpy(),
        "foreign bytes": x_ND.numpy().astype(">f4"),
        "frame": pandas.DataFrame(x_ND.numpy()),
        "loader": DataLoader(TensorDataset(x_ND, torch.arange(len(x_ND))), batch_size=700),
        "generator": (part for part in x_ND.split(1)),
        "mapping": {"acts": x_ND.clone().requires_grad_()},
    }


@pytest.mark.parametrize("form", list(forms(torch.zeros(1, D))))
def test_whatever_holds_the_rows_they_are_the_same(x_ND: torch.Tensor, form: str, tmp_path: Path):
    with (tmp_path / "rows").open("w+b") as spool:
        held = arrays(forms(x_ND)[form], spool)
    assert list(held) == ["acts"] and held["acts"].dtype == torch.float32
    assert torch.equal(held["acts"], x_ND)
    assert not torch.equal(held["acts"].roll(1, 0), x_ND)


def test_a_loader_trains_the_run_that_its_tensor_trains(
    x_ND: torch.Tensor, run: Path, tmp_path: Path
):
    loader = DataLoader(TensorDataset(x_ND), batch_size=700)
    other = SAE.load(train_on(loader, out=tmp_path / "run", **OPTIONS))
    mine = SAE.load(run)
    pairs = zip(mine.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # nothing else is left
    turned = SAE.load(train_on(x_ND.flip(0), out=tmp_path / "turned", **OPTIONS))
    assert not torch.equal(mine.W_dec, turned.W_dec)


def test_the_run_keeps_the_rows_and_learns_them(x_ND: torch.Tensor, run: Path):
    cache = Cache(run / "cache")
    kept = torch.cat(
        [chunk.x for split in ("train", "held_out") for chunk in cache.counted("acts", split)]
    )
    assert torch.equal(kept.sort(0).values, x_ND.sort(0).values)
    assert cache.n_tokens("held_out") > 50 and len(cache.document_names()) == 200
    report = saelab.evaluate(SAE.load(run), cache)
    assert report["fvu"]["value"] < 0.5 * report["references"]["pca"]["fvu"]["value"] + 0.3
    assert report["fvu"]["low"] < report["fvu"]["value"] < report["fvu"]["high"]


def test_it_is_measured_without_a_model_and_says_so(run: Path, capsys: pytest.CaptureFixture):
    assert main(["eval", str(run), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "ce_recovered" not in report and "ce_clean" not in report
    assert report["no_losses"] == "there is no model, its activations were given"
    # The truth in float64, of the held-out rows.
    sae, x_ND = SAE.load(run), next(iter(Cache(run / "cache").counted("acts", "held_out"))).x
    with torch.no_grad():
        missed = (x_ND - sae(x_ND)).double().square().sum()
    total = (x_ND - x_ND.mean(0)).double().square().sum()
    assert report["fvu"]["value"] == pytest.approx(float(missed / total), rel=1e-5)
    assert main(["supervise", str(run)]) == 2
    said = capsys.readouterr().err
    assert "is on activations that were given: `eval`, `index` and `browse` work on it" in said


def test_contexts_and_their_documents_are_taken_as_they_are(tmp_path: Path):
    x_CTD = torch.randn(40, 10, D, generator=torch.Generator().manual_seed(0))
    ids = {"owners": torch.arange(40) // 2, "tokens": torch.arange(400).view(40, 10) % 7}
    folder = train_on(x_CTD, ids=ids, out=tmp_path / "run", k=2, features=8)
    cache = Cache(folder / "cache")
    assert cache.context == 10 and len(cache.document_names()) == 20
    config = json.loads(json.dumps((folder / "config.yaml").read_text()))
    assert "tokens: 7600" in config and "batch: 47" in config  # 20 epochs, an eighth of the rows


def test_a_transcoder_of_ones_own_activations(x_ND: torch.Tensor, tmp_path: Path):
    held = {"in": x_ND, "out": x_ND[:, :5] * 2}
    folder = train_on(held, hook="in", target="out", out=tmp_path / "run", **OPTIONS)
    sae = SAE.load(folder)
    assert sae.transcoder and sae.b_dec.shape == (5,)
    with pytest.raises(UsageError, match="an SAE from in to out is measured in its model"):
        saelab.evaluate(sae, Cache(folder / "cache"))


def test_without_a_name_runs_stand_beside_each_other(
    x_ND: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    first, second = (train_on(x_ND[:400], k=1, features=4, tokens=400) for _ in range(2))
    assert (first, second) == (Path("runs/own"), Path("runs/own-2"))


def test_a_loader_without_an_end_is_read_as_far_as_it_is_trained_on(tmp_path: Path):
    endless = (np.random.default_rng(n).normal(size=(64, D)) for n in itertools.count())
    folder = train_on(endless, out=tmp_path / "run", k=1, features=4, tokens=1000)
    assert Cache(folder / "cache").manifest["settings"]["n_tokens"] == 1024


@pytest.mark.parametrize(
    ("acts", "options", "message"),
    [
        ("acts.npy", {}, "is a str: a tensor, an array, a DataFrame of numbers, or batches"),
        (3, {}, "is a int: a tensor"),
        ([], {}, "has no batches with rows in them"),
        ([torch.zeros(3, 4), torch.zeros(3, 5)], {}, r"batch 1 has rows of shape \[5\], those"),
        ([torch.zeros(4)], {}, r"batch 0 has shape \[4\]: \[B, D\] or \[B, T, D\] is right"),
        ([{"x": 1}], {}, "batch 0 is a dict: a tensor"),
        (pandas.DataFrame({"a": ["x"]}), {}, "has columns that are no numbers: leave them out"),
        (torch.zeros(300, 4, dtype=torch.int64), {}, "acts is int64 of shape"),
        (torch.full((300, 4), torch.nan), {}, "not finite, first in row 0"),
        (torch.zeros(3, 4), {}, "3 rows of activations are too few to train on: give 100 or more"),
        ({}, {}, "0 rows of activations are too few"),
        (torch.zeros(300, 4), {"feature": 3}, "no option 'feature'; there are aux"),
        (torch.zeros(300, 4), {"k": 9, "features": 4}, "k=9 is more than features=4"),
        (torch.zeros(300, 4), {"live": True}, "no option 'live'"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_before_anything_is_written(
    acts, options: dict, message: str, tmp_path: Path
):
    with pytest.raises(UsageError, match=message):
        train_on(acts, out=tmp_path / "run", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(x_ND: torch.Tensor, run: Path):
    with pytest.raises(UsageError, match="already holds another run: choose another"):
        train_on(x_ND, out=run, **OPTIONS)


def test_a_failed_training_leaves_no_folder(
    x_ND: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(own, "train", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no")))
    with pytest.raises(RuntimeError, match="no"):
        train_on(x_ND, out=tmp_path / "run", **OPTIONS)
    assert list(tmp_path.iterdir()) == []
