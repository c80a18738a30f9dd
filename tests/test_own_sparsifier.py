"""A sparsifier of one's own: a function under a name, which trains, is measured and saved as the
built-in ones are, and is refused where it is not known or not one of tokens."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import saelab
from apps.cli import main
from saelab import SAE, kernels, sparsify
from saelab.errors import UsageError
from saelab.sparsify import Choice, Own
from tests.conftest import HOOK
from training import start

PRE = torch.tensor([[3.0, -5.0, 0.4, 0.6], [0.1, 0.2, -0.3, 2.0]])


@pytest.fixture(autouse=True)
def gone_after_the_test(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sparsify, "_masks", {})


def three_largest(pre_BF: Tensor) -> Tensor:
    """What `topk` at k = 3 keeps, ties apart."""
    best_BK = pre_BF.topk(3).indices
    return torch.zeros_like(pre_BF, dtype=torch.bool).scatter(1, best_BK, True) & (pre_BF > 0)


def chosen(pre_BF: Tensor, name: str, backend: str = "reference") -> list[list[float]]:
    """The code as a table, where the encoder is the identity."""
    n_features = pre_BF.shape[1]
    with kernels.backend(backend):
        form = sparsify.named(name, 1)
        code = kernels.choose(pre_BF, torch.eye(n_features), torch.zeros(n_features), form)
    return code.to_dense().tolist()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_the_function_says_which_pairs_are_kept(backend: str):
    saelab.register("sparsifier", "loud", lambda pre: pre > 0.5)
    saelab.register("sparsifier", "large", lambda pre: pre.abs() > 0.5, signed=True)
    expected = torch.tensor([[3.0, 0.0, 0.0, 0.6], [0.0, 0.0, 0.0, 2.0]])
    assert chosen(PRE, "loud", backend) == expected.tolist()
    expected[0, 1] = -5.0
    assert chosen(PRE, "large", backend) == expected.tolist()


def test_a_function_that_changes_its_input_changes_no_values():
    saelab.register("sparsifier", "loud", lambda pre: pre.mul_(2) > 1)
    assert chosen(PRE, "loud")[0] == torch.tensor([3.0, 0.0, 0.0, 0.6]).tolist()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (lambda pre: pre, "gives torch.float32: a mask, a tensor of torch.bool, is right"),
        (lambda pre: (pre > 0).numpy(), "gives bool: a mask, a tensor of torch.bool"),
        (lambda pre: (pre > 0).any(1), r"a mask \[2\] of pre-activations \[2, 4\]"),
        (lambda pre: pre.abs() > 0.5, "keeps negative pre-activations: register it with signed"),
        (lambda pre: pre >= pre.max(), "alone and in a batch of 2: it must look at each token"),
    ],
)
def test_a_function_that_gives_no_mask_of_tokens_is_refused(mask, message: str):
    saelab.register("sparsifier", "bad", mask)
    with pytest.raises(UsageError, match=f"the sparsifier 'bad' .*{message}"):
        chosen(PRE, "bad")


@pytest.fixture
def config(tiny_cache: Path, tmp_path: Path) -> saelab.Config:
    """A small run on plain torch, whatever the sparsifier."""
    return saelab.Config(
        cache=str(tiny_cache),
        hook=HOOK,
        out=str(tmp_path / "run"),
        k=3,
        features=64,
        tokens=4000,
        batch=250,
        lr=1e-3,
        backend="reference",
    )


def test_topk_as_a_function_trains_to_the_weights_of_topk(
    config: saelab.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """From one start: gradients, AuxK and calibration around it are those of the built-in ones."""
    monkeypatch.setattr(start, "seed_of", lambda config: config.seed)
    config = replace(config, encoder="unit")  # of a function nothing says how long is best
    built_in = SAE.load(saelab.train(config))
    saelab.register("sparsifier", "three", three_largest)
    mine = SAE.load(saelab.train(replace(config, sparsify="three", out=str(tmp_path / "mine"))))
    assert mine.sparsify == Own("three") and built_in.sparsify == Choice(3)
    for name, weight in built_in.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
    saelab.register("sparsifier", "two", lambda pre: pre > pre.topk(3).values[:, 2:])
    other = SAE.load(saelab.train(replace(config, sparsify="two", out=str(tmp_path / "other"))))
    assert not torch.allclose(other.W_dec, built_in.W_dec, rtol=1e-4, atol=1e-6)


def test_a_run_of_ones_own_sparsifier_goes_through_the_verbs(
    config: saelab.Config, capsys: pytest.CaptureFixture
):
    saelab.register("sparsifier", "three", three_largest)
    run = str(saelab.train(replace(config, sparsify="three")))
    assert repr(SAE.load(run)).startswith("SAE(32 -> 64 -> 32, three, at")
    assert "three at" in repr(saelab.RunFolder(run))
    assert SAE.load(run).frozen().sparsify == Own("three")  # its own inference form
    assert main(["eval", run, "--tokens", "500", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert 2 < report["l0"]["value"] <= 3
    assert main(["index", run, "--tokens", "2k"]) == 0
    assert main(["export", run, "--to", "saelens", "--out", f"{run}-exported"]) == 2
    assert "its sparsifier 'three' is a function of one's own" in capsys.readouterr().err


def test_where_it_is_not_registered_the_run_says_so(
    config: saelab.Config, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    saelab.register("sparsifier", "three", three_largest)
    run = str(saelab.train(replace(config, sparsify="three")))
    monkeypatch.setattr(sparsify, "_masks", {})
    with pytest.raises(UsageError, match="with the sparsifier 'three', which is not known here"):
        SAE.load(run)
    assert main(["eval", run]) == 2
    assert "saelab.register('sparsifier', 'three', function)" in capsys.readouterr().err
    assert main(["info", run]) == 0
    assert main(["train", "--cache", "c", "--out", "o", "--sparsify", "three"]) == 2
    assert "no sparsifier 'three'; there are topk" in capsys.readouterr().err


def test_another_function_of_that_name_is_not_the_one_that_was_saved(
    config: saelab.Config, monkeypatch: pytest.MonkeyPatch
):
    saelab.register("sparsifier", "three", three_largest)
    run = saelab.train(replace(config, sparsify="three"))
    monkeypatch.setattr(sparsify, "_masks", {})
    saelab.register("sparsifier", "three", lambda pre: pre > 100)
    with pytest.raises(RuntimeError, match="is not the function that was saved"):
        SAE.load(run)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (("topk", three_largest), "there is a sparsifier 'topk' already"),
        (("mine", 3), "a word and a function are right"),
        (("mine",), "takes its name and a function from pre-activations to a mask: 1 arguments"),
    ],
)
def test_what_is_no_sparsifier_is_refused_at_the_door(what: tuple, message: str):
    with pytest.raises(UsageError, match=message):
        saelab.register("sparsifier", *what)
    saelab.register("sparsifier", "three", three_largest)
    with pytest.raises(UsageError, match="there is a sparsifier 'three' already"):
        saelab.register("sparsifier", "three", three_largest, True)
    with pytest.raises(UsageError, match="three has no score"):
        _ = saelab.Config(sparsify="three", beta=1.0).form


def test_shards_of_a_dictionary_cannot_hold_it():
    from training.distributed import problems

    saelab.register("sparsifier", "three", three_largest)
    config = saelab.Config(sparsify="three", layout="sharded", features=64, batch=256)
    assert "three needs all features in one place: --layout replicated" in list(problems(config, 2))
    assert list(problems(replace(config, layout="replicated"), 2)) == []
