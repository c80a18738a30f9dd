"""A training step: fused and autograd agree, decoder rows keep unit norm, dead features come back,
several runs share a pass."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

import training
from saelab import SAE
from saelab.activations import Cache
from saelab.errors import UsageError
from saelab.kernels.cpu import probe
from saelab.token_norm import normalised
from tests.conftest import HOOK, SECOND_HOOK
from training import revival
from training.run import Run
from training.scale import geometric_median, scale_of
from training.updates import Autograd, Batch, Fused


@pytest.fixture
def config(tiny_cache: Path, tmp_path: Path) -> training.Config:
    """A short run on the session's cache."""
    options = {"features": 128, "k": 4, "tokens": 20_480, "batch": 256, "lr": 0.003}
    return training.Config(cache=str(tiny_cache), out=str(tmp_path / "run"), hook=HOOK, **options)


def stepped(config: training.Config, n_steps: int) -> tuple[Run, list]:
    """A run after so many steps on its cache, and what each step measured."""
    stream = Cache(config.cache).batches(HOOK, config.batch)
    first = torch.cat([next(stream) for _ in range(8)])
    run = Run(config, first, first)
    done = []
    for _ in range(n_steps):
        x = next(stream)
        done.append(run.step(x, x))
    return run, done


def test_a_checkpoint_from_before_jumprelus_features_waited_goes_on(config: training.Config):
    config = replace(config, sparsify="jumprelu")
    run, _ = stepped(config, 3)
    state = run.state()
    assert int(state.pop("adam.last").min()) < 3
    again, _ = stepped(config, 1)
    again.load_state(state)
    assert again.optimiser.more()["last"].unique().tolist() == [3]


@pytest.mark.parametrize("sparsify", ["topk", "abstopk", "batchtopk", "feature-choice"])
def test_fused_steps_equal_autograds(config: training.Config, sparsify: str):
    config = replace(config, sparsify=sparsify, features=512, dead_window=256, seed=2)
    with probe.screening(torch.float32):  # AuxK's products follow the screen
        fused, measured = stepped(replace(config, backend="cpu"), 12)
    plain, reference = stepped(replace(config, backend="reference"), 12)
    assert isinstance(fused.optimiser, Fused) and isinstance(plain.optimiser, Autograd)
    assert sparsify == "feature-choice" or measured[-1].terms["aux"] > 0, (
        "the comparison must include AuxK"
    )
    for mine, theirs in zip(measured, reference, strict=True):
        assert mine.certified is not None and theirs.certified is None
        assert mine._replace(certified=None).row() == pytest.approx(
            theirs.row(), rel=2e-3, abs=1e-5
        )
    for name, weight in plain.sae.state_dict().items():
        torch.testing.assert_close(fused.sae.state_dict()[name], weight, rtol=1e-2, atol=2e-4)


def test_auxiliary_gradients_from_bfloat16_products_are_near_those_from_float32(
    config: training.Config,
):
    def extra(dtype: torch.dtype):
        with probe.screening(dtype):
            run, _ = stepped(replace(config, backend="cpu"), 3)
            x = next(Cache(config.cache).batches(HOOK, config.batch)) / run.scale.input
            forward = run.optimiser.forward(Batch(x, x, None), run.scale.variance)
            return run._aux(x, forward, torch.arange(128) < 40)[0]

    exact, quick = extra(torch.float32), extra(torch.bfloat16)
    for name in ("W_enc", "W_dec"):
        theirs, mine = getattr(exact, name), getattr(quick, name)
        assert 0 < (mine - theirs).norm() / theirs.norm() < 0.02, name


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_decoder_rows_have_unit_norm_after_every_step(config: training.Config, backend):
    for n in (1, 5):
        run, _ = stepped(replace(config, backend=backend), n)
        torch.testing.assert_close(run.sae.W_dec.norm(dim=1), torch.ones(128), rtol=0, atol=1e-6)


def test_the_auxiliary_loss_reaches_features_that_the_main_loss_cannot(config: training.Config):
    def moved(aux: float) -> float:
        run, _ = stepped(replace(config, aux=aux, dead_window=500), 0)
        # Never among the four best, now and then positive.
        run.sae.b_enc.data[:64] = -2.5 * float(run.sae.W_enc[0].detach().norm())
        before = run.sae.W_enc[:64].clone()
        stream = Cache(config.cache).batches(HOOK, config.batch)
        for _ in range(20):
            x = next(stream)
            run.step(x, x)
        return float((run.sae.W_enc[:64] - before).detach().norm())

    assert moved(0.0) < 1e-3 < 0.1 < moved(1 / 32)


@pytest.mark.parametrize("sparsify", ["topk", "jumprelu"])
def test_a_feature_that_no_gradient_reaches_gets_a_new_row_and_fires(
    config: training.Config, sparsify: str
):
    draw = torch.Generator().manual_seed(0)
    basis, shape = torch.randn(40, 32, generator=draw), (24 * 256, 40)
    there = torch.rand(shape, generator=draw) * (torch.rand(shape, generator=draw) < 0.1)
    x = there @ basis + 0.05 * torch.randn(len(there), 32, generator=draw)
    short = replace(config, sparsify=sparsify, k=16, lr=0.01, dead_window=512, backend="reference")

    def batches_fired_in(revive: bool) -> torch.Tensor:
        run = Run(replace(short, revive=revive), x, x)
        run.sae.b_enc.data[:8] = -100.0  # below 0 at every token, so that AuxK's gradient is 0
        fired_F = torch.zeros(128)
        for rows in x.repeat(3, 1).split(256)[:60]:
            run.step(rows, rows)
            fired_F += run.counters.silent_F == 0
        assert (run.n_revived >= 8) == revive
        return fired_F[:8]

    # One of these is the new row itself, whose silence begins anew.
    assert batches_fired_in(True).min() > 5 and not batches_fired_in(False).any()


def test_new_rows_begin_with_the_moments_of_a_usual_feature(config: training.Config):
    """Moments of 0 would make their first steps three times the rate."""
    x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))
    run = Run(replace(config, revive=True, dead_window=512, backend="reference"), x, x)
    run.step(x, x)
    run.sae.b_enc.data[:8] = -100.0
    run.counters.silent_F[:8] = 512
    first, second = run.optimiser.moments()["W_enc"]
    usual = second.mean(0)
    assert revival.revive(run, x, x) == 8
    torch.testing.assert_close(second[:8], usual.expand(8, -1), rtol=1e-5, atol=0)
    assert usual.min() > 0 and not first[:8].any() and first[8:].any()


def test_a_fused_step_screens_rows_that_were_put_in_place(config: training.Config):
    x = torch.randn(256, 32, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def after(screen: torch.dtype, unseen: bool = False) -> torch.Tensor:
        with probe.screening(screen):
            run = Run(replace(config, aux=0.0, backend="cpu"), x, x)
            run.step(x, x)
            (run.sae.W_enc.data if unseen else run.sae.W_enc)[:64] *= -1
            run.step(x, x)
        return run.sae.W_enc

    exact_FD = after(torch.float32)
    assert torch.equal(after(torch.bfloat16), exact_FD)
    assert not torch.equal(after(torch.bfloat16, unseen=True), exact_FD)


def test_new_rows_point_towards_the_errors_of_tokens_with_high_ones():
    error = torch.diag(torch.tensor([1e-3, 5.0, 1e-3, 4.0]))
    centred = torch.ones(4, 4)
    fresh = revival.fresh_rows(centred, error, 2, seed=0)
    assert sorted(fresh.W_dec.argmax(1).tolist()) == [1, 3]
    assert torch.equal(fresh.W_enc, revival.SHORT * fresh.W_dec)
    assert fresh.levels.tolist() == pytest.approx([revival.SHORT / 2] * 2)
    torch.testing.assert_close(fresh.W_dec.norm(dim=1), torch.ones(2))
    other = revival.fresh_rows(centred, error, 2, seed=0, transcoder=True)
    torch.testing.assert_close(other.W_enc, torch.full((2, 4), revival.SHORT / 2))


def test_normalised_tokens_train_what_standardised_activations_do(config: training.Config):
    def trained(x: torch.Tensor, normalise: Literal["none", "token"]) -> tuple[Run, SAE]:
        run = Run(replace(config, normalise=normalise, sparsify="batchtopk"), x, x)
        run.sae.load_state_dict(start)
        for rows in x.split(config.batch):
            run.step(rows, rows)
        sae = run.final()
        assert isinstance(sae, SAE)
        sae.calibrate([x])
        return run, sae.frozen()

    stream = Cache(config.cache).batches(HOOK, config.batch)
    x = torch.cat([next(stream) for _ in range(8)])
    given = normalised(x, "layer_norm")
    start = copy.deepcopy(Run(config, given.x, given.x).sae.state_dict())
    (one, mine), (other, theirs) = trained(x, "token"), trained(given.x, "none")
    assert isinstance(one.sae, SAE) and isinstance(other.sae, SAE)
    assert torch.equal(one.sae.W_enc, other.sae.W_enc) and torch.equal(one.probe, x[:16])
    torch.testing.assert_close(mine(x), given.undo(theirs(given.x)))
    assert not torch.allclose(mine(x), theirs(x)) and mine.token_norm == "layer_norm"
    assert torch.equal(mine.levels, theirs.levels) and theirs.levels.min() > 0


def test_training_lowers_the_error_and_saves_an_sae_of_raw_activations(
    config: training.Config, tiny_cache: Path
):
    out = training.train(config)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["fvu"] < 0.6 * rows[0]["fvu"] and rows[-1]["certified_fraction"] > 0.9
    assert rows[-1]["loss"] == pytest.approx(
        rows[-1]["fvu"] + config.aux * rows[-1]["aux"], abs=1e-6
    )
    sae = SAE.load(out)
    x = next(Cache(tiny_cache).batches(HOOK, 800, split="held_out"))
    with torch.no_grad():
        fvu = float((x - sae(x)).square().sum() / (x - x.mean(0)).square().sum())
    assert fvu == pytest.approx(rows[-1]["fvu"], rel=0.4)


def test_two_seeds_in_one_pass_equal_each_trained_alone(config: training.Config, tmp_path: Path):
    seeds = [replace(config, out=str(tmp_path / f"seed{seed}"), seed=seed) for seed in (0, 1)]
    together = training.train(seeds)
    alone = training.train(replace(seeds[1], out=str(tmp_path / "alone")))
    first, second, third = (SAE.load(run) for run in (*together, alone))
    assert torch.equal(second.W_dec, third.W_dec) and torch.equal(second.b_enc, third.b_enc)
    assert not torch.equal(first.W_dec, second.W_dec)


@pytest.mark.parametrize("sparsify", ["batchtopk", "feature-choice"])
def test_a_batch_or_feature_budget_is_saved_with_levels_that_keep_its_l0(
    config: training.Config, tiny_cache: Path, sparsify: str
):
    sae = SAE.load(training.train(replace(config, sparsify=sparsify)))
    x = next(Cache(tiny_cache).batches(HOOK, 900, split="held_out"))
    with torch.no_grad():
        l0 = len(sae.encode(x).values) / 900
    assert l0 == pytest.approx(4, rel=0.15)


def test_a_transcoder_predicts_another_hook(config: training.Config):
    out = training.train(replace(config, target=SECOND_HOOK))
    sae = SAE.load(out)
    assert sae.transcoder and sae.origin.target == SECOND_HOOK
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["fvu"] < rows[0]["fvu"]


def test_configs_that_cannot_share_a_pass_are_refused(config: training.Config, tmp_path: Path):
    with pytest.raises(UsageError, match="must share batch: 256 and 512 differ"):
        training.train([config, replace(config, out=str(tmp_path / "b"), batch=512)])
    with pytest.raises(UsageError, match="run folders of their own"):
        training.train([config, replace(config, seed=1)])


def test_scale_and_median_by_hand():
    x = torch.tensor([[3.0, 4.0], [3.0, 4.0], [-3.0, -4.0], [-3.0, -4.0]])
    scale = scale_of(x, 2 * x)
    assert scale.input == pytest.approx((25 / 2) ** 0.5) and scale.target == pytest.approx(50**0.5)
    assert scale.variance == pytest.approx(
        2.0
    )  # norms of 1 x D after scaling, all of it about the mean 0
    spread = torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0]])
    assert float(geometric_median(spread, 200)) == pytest.approx(2.0, abs=0.05)
