"""Every label-free dictionary as a run: fitted on a cache, saved, loaded, measured, indexed."""

from pathlib import Path
from typing import get_args

import pytest
import torch

import training
from apps.cli import main
from saelab import SAE, opening
from saelab.activations import Cache
from saelab.analysis.parts import sites
from saelab.dictionaries import encoders, methods
from saelab.dictionaries.names import Coded, Linear
from saelab.errors import FailedRun, UsageError
from saelab.evaluation import evaluate
from saelab.evaluation.rivals import rivals
from saelab.features.build import build
from saelab.features.reader import FeatureIndex
from saelab.files import read_json, write_json
from tests.conftest import HOOK

LINEAR, CODED = get_args(Linear), get_args(Coded)


def fitted(name: str, cache: Path, out: Path, **fields) -> Path:
    options = {"hook": HOOK, "features": 48, "k": 3, "tokens": 1500, "batch": 256, **fields}
    return training.train(
        training.Config(cache=str(cache), out=str(out), dictionary=name, **options)
    )


def test_the_names_that_a_run_takes_are_the_methods():
    assert [*LINEAR, *CODED] == [*methods.METHODS]


@pytest.mark.parametrize("name", methods.METHODS)
def test_each_is_saved_loaded_measured_and_indexed(name: str, tiny_cache: Path, tmp_path: Path):
    folder = fitted(name, tiny_cache, tmp_path / name)
    opened = opening.open(folder, needs=("cache",))
    sae, cache = opened.sae, Cache(tiny_cache)
    assert sae.n_features == (32 if methods.METHODS[name].complete else 48)
    assert (sae.encoder is None) == (name in LINEAR)
    assert repr(sae).startswith(f"SAE(32 -> {sae.n_features} -> 32, {name} k=")

    report = evaluate(sae, cache, n_tokens=500)
    limit = {"k-means": 1, "bsc": 3, "tsc": 3, "gsc": 3}.get(name, 3)
    assert 0 < report["l0"]["value"] <= limit
    if name != "random":  # whose rows know nothing of the activations
        assert report["fvu"]["value"] < 1

    build(sae, cache, HOOK, folder / "features.db")
    assert FeatureIndex(folder / "features.db").n_features == sae.n_features


def test_an_encoder_comes_back_from_its_file_and_another_one_is_noticed(
    tiny_cache: Path, tmp_path: Path
):
    folder = fitted("k-svd", tiny_cache, tmp_path / "run")
    sae = SAE.load(folder)
    assert sae.encoder == encoders.Pursued()
    header = read_json(folder / "sae" / "sae.json")
    write_json(folder / "sae" / "sae.json", {**header, "encoder": {"kind": "nearest"}})
    with pytest.raises(FailedRun, match="not the function that was saved"):
        SAE.load(folder)


def test_what_asks_for_scores_refuses_other_encoders(tiny_cache: Path, tmp_path: Path):
    sae = SAE(8, 16, methods.Choice(2))
    sae.encoder = encoders.Nearest()
    with pytest.raises(UsageError, match=r"codes tokens by its encoder \(Nearest\)"):
        sites(None, [sae])
    with pytest.raises(UsageError, match="otherwise than by a score of each feature"):
        from saelab import formats

        formats.save(sae, tmp_path / "there", "saelens")


def test_options_of_training_are_refused(tiny_cache: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="sparsify=relu is for SAEs, and dictionary=pca is none"):
        fitted("pca", tiny_cache, tmp_path / "run", sparsify="relu")
    with pytest.raises(UsageError, match="k=40 for a dictionary of 32 features"):
        fitted("pca", tiny_cache, tmp_path / "run", k=40)
    assert not (tmp_path / "run").exists()
    options = {"cache": str(tiny_cache), "hook": HOOK, "features": 48, "k": 3, "tokens": 512}
    mixed = [
        training.Config(out=str(tmp_path / str(name)), dictionary=name, batch=256, **options)
        for name in ("pca", None)
    ]
    with pytest.raises(UsageError, match="fitted apart from SAEs"):
        training.train(mixed)


def test_the_command_fits_several_in_one_pass(tiny_cache: Path, tmp_path: Path, capsys):
    recipe = tmp_path / "two.yaml"
    fields = {"dictionary": "[pca, neurons]", "hook": HOOK, "k": 3, "tokens": 1024, "batch": 256}
    recipe.write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    line = ["train", str(recipe), "--cache", str(tiny_cache), "--out", str(tmp_path / "out")]
    assert main(line) == 0
    printed = capsys.readouterr().out
    assert "pca of 1,024 tokens" in printed and "neurons of 1,024 tokens" in printed
    pca, neurons = (SAE.load(run) for run in sorted((tmp_path / "out").iterdir(), reverse=True))
    assert torch.equal(neurons.W_dec, torch.eye(32)) and not torch.equal(pca.W_dec, neurons.W_dec)


def test_encoders_code_what_their_words_say():
    random = torch.Generator().manual_seed(0)
    W_FD = torch.randn(6, 4, generator=random, dtype=torch.float64)
    x_BD = torch.randn(50, 4, generator=random, dtype=torch.float64)
    nearest = encoders.Nearest()(x_BD, W_FD, 1)
    assert nearest.features.tolist() == torch.cdist(x_BD, W_FD).argmin(1).tolist()

    from scipy.optimize import nnls

    # Of all six values none is left out: the code is non-negative least squares itself.
    code = encoders.NonNegative(1000)(x_BD, W_FD, 6)
    error_B = (x_BD - code.to_dense() @ W_FD).norm(dim=1)
    best_B = torch.tensor([nnls(W_FD.T.numpy(), x.numpy())[1] for x in x_BD]).double()
    assert bool((code.values > 0).all())
    scores_B = (x_BD - (x_BD @ W_FD.T).relu() @ W_FD).norm(dim=1)  # no least squares
    more_B, without_B = ((e.square() - best_B.square()).mean() for e in (error_B, scores_B))
    assert more_B < 1e-3 < without_B
    few = encoders.NonNegative(300)(x_BD, W_FD, 2)
    assert int(few.starts.diff().max()) == 2


def test_rivals_stand_beside_an_sae_at_its_l0(tiny_run: Path, tiny_cache: Path):
    sae, cache = SAE.load(tiny_run), Cache(tiny_cache)
    others = rivals(sae, cache, names=["pca", "k-means"])
    assert [*others] == ["pca k=4", "k-means k=1"]
    report = evaluate(sae, cache, n_tokens=500, rivals=others)
    assert report["rivals"] == {"pca k=4": 32, "k-means k=1": 64}
    rows = report["references"]
    assert rows["pca k=4"]["l0"]["value"] == 4 and rows["k-means k=1"]["l0"]["value"] == 1
    # The four axes of each token's largest scores miss less than the four of most variance.
    assert rows["pca k=4"]["fvu"]["value"] < rows["pca"]["fvu"]["value"]
    assert "controls" not in report
