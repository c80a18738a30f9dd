"""What a run starts from, and a decoder that stays there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import training
from saelab import SAE, initial
from saelab.files import write_json
from saelab.runs import RunFolder
from tests.conftest import HOOK, SECOND_HOOK
from tests.training.test_resume import final_state, same
from tests.training.test_run import stepped
from training.start import configuration, seed_of
from training.updates import Autograd, Fused


@pytest.fixture(scope="module")
def config(tiny_cache: Path) -> training.Config:
    options = {"features": 96, "k": 4, "tokens": 5120, "batch": 256, "lr": 0.003}
    return training.Config(cache=str(tiny_cache), hook=HOOK, checkpoint_every=10, **options)


def rows(sae: SAE) -> torch.Tensor:
    """What the origin says that the decoder rows were drawn from."""
    assert sae.origin.start is not None
    tied = not sae.transcoder
    width = len(sae.b_dec)
    return initial.weights(sae.d_model, sae.n_features, width, tied, sae.origin.start)["W_dec"]


def test_one_seed_starts_every_configuration_elsewhere_and_the_same_one_in_the_same_place(config):
    others = [{"sparsify": "batchtopk"}, {"k": 8}, {"seed": 1}, {"lr": 0.01}, {"tokens": 10_240}]
    seeds = [seed_of(replace(config, **other)) for other in ({}, *others)]
    assert len(set(seeds)) == len(seeds)
    elsewhere = {"out": "b", "backend": "reference", "device": "cpu", "wandb": True}
    assert seed_of(replace(config, **elsewhere)) == seeds[0]
    groups = [configuration(replace(config, **other)) for other in ({}, *others)]
    assert len(set(groups)) == len(groups) - 1 and groups[0] == groups[3]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_frozen_decoder_keeps_its_bits_and_all_else_is_trained(config, backend):
    dead = {"features": 512, "dead_window": 256, "backend": backend}
    run, steps = stepped(replace(config, freeze="decoder", **dead), 12)
    assert isinstance(run.optimiser, Fused if backend == "cpu" else Autograd)
    assert steps[-1].terms["aux"] > 0, "AuxK must be part of it"
    begun, _ = stepped(replace(config, freeze="decoder", **dead), 0)
    assert torch.equal(run.sae.W_dec, begun.sae.W_dec)
    assert steps[-1].terms["fvu"] < steps[0].terms["fvu"]
    for name in ("W_enc", "b_enc", "b_dec"):
        assert not torch.equal(run.sae.get_parameter(name), begun.sae.get_parameter(name))
    moving, _ = stepped(replace(config, **dead), 12)
    assert not torch.equal(moving.sae.W_dec, stepped(replace(config, **dead), 0)[0].sae.W_dec)


def test_fused_steps_with_a_frozen_decoder_equal_autograds(config):
    fused, plain = (
        stepped(replace(config, freeze="decoder", aux=0.0, backend=name), 8)[0].sae.state_dict()
        for name in ("cpu", "reference")
    )
    for name, weight in plain.items():
        torch.testing.assert_close(fused[name], weight, rtol=1e-3, atol=1e-4)


def test_a_frozen_transcoder_resumes_to_the_same_bits_and_lies_where_it_began(config, tmp_path):
    options = {"freeze": "decoder", "target": SECOND_HOOK}
    whole = training.train(replace(config, out=str(tmp_path / "whole"), **options))
    halved = replace(config, out=str(tmp_path / "halved"), **options)

    def interrupt(step: int, *_: object) -> None:
        if step == 15:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        training.train(halved, progress=interrupt)
    assert same(final_state(training.train(halved, resume=True)), final_state(whole))
    sae = SAE.load(whole)
    torch.testing.assert_close(torch.nn.functional.normalize(sae.W_dec.detach(), dim=1), rows(sae))


def test_a_run_begun_before_starts_were_recorded_goes_on_and_says_its_seed(config, tmp_path):
    begun = replace(config, out=str(tmp_path / "run"), seed=3)
    training.train(begun)
    folder = RunFolder(begun.out)
    assert SAE.load(folder.path).origin.start == seed_of(begun)
    record = json.loads(folder.training.read_text())
    write_json(folder.training, {name: record[name] for name in ("schema", "data", "lengths")})
    training.train(begun, resume=True)
    assert SAE.load(folder.path).origin.start == 3
