"""Variants of a run: identities between them, budgets met, gradients that choose, levels that reach
their target, averages."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import training
from saelab import SAE
from saelab.activations import Cache
from saelab.errors import UsageError
from saelab.kernels import column_sums
from saelab.sparsify import Choice, Threshold
from tests.conftest import HOOK, SECOND_HOOK, make_cache
from training import start
from training.run import Run
from training.updates import Autograd, Fused


@pytest.fixture(scope="module")
def cache(tiny_model: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cache that holds gradients."""
    return make_cache(
        tiny_model,
        tiny_corpus,
        tmp_path_factory.mktemp("caches") / "gradients",
        n_tokens=8_000,
        gradients=True,
    )


@pytest.fixture(autouse=True)
def one_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variants are held to the same bits from the same start."""
    monkeypatch.setattr(start, "seed_of", lambda config: config.seed)


@pytest.fixture
def config(cache: Path, tmp_path: Path) -> training.Config:
    """A short run on it."""
    options = {"features": 96, "k": 4, "tokens": 10_240, "batch": 256, "lr": 0.003, "log_every": 1}
    return training.Config(cache=str(cache), out=str(tmp_path / "run"), hook=HOOK, **options)


def stepped(config: training.Config, n_steps: int = 8) -> Run:
    """A run after so many steps."""
    stream = Cache(config.cache).batches([HOOK, f"{HOOK}.grad"], config.batch)
    first = torch.cat([next(stream)[HOOK] for _ in range(8)])
    run = Run(config, first, first)
    for _ in range(n_steps):
        x = next(stream)
        run.step(x[HOOK], x[HOOK], x[f"{HOOK}.grad"] if getattr(config.form, "beta", 0) else None)
    return run


def same(one: Run, other: Run) -> bool:
    """Equal weights, bit for bit."""
    return all(
        torch.equal(a, b) for a, b in zip(one.sae.parameters(), other.sae.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("one", "other", "foreign"),
    [
        ({"sparsify": "mutual-choice"}, {"sparsify": "batchtopk"}, {"sparsify": "topk"}),
        ({"sparsify": "g-sae", "beta": 0.0}, {"sparsify": "topk"}, {"sparsify": "g-sae"}),
        ({"sparsify": "topk", "beta": 1.0}, {"sparsify": "g-sae"}, {"sparsify": "topk"}),
        (
            {"sparsify": "gradient-mutual-choice", "beta": 0.0},
            {"sparsify": "batchtopk"},
            {"sparsify": "gradient-mutual-choice"},
        ),
        (
            {"sparsify": "feature-choice", "mutual": 0.99},
            {"sparsify": "batchtopk"},
            {"sparsify": "feature-choice"},
        ),
        ({"aux_zipf": 1e-9}, {}, {"aux_zipf": 0.9}),
    ],
)
def test_two_names_of_one_thing_train_to_the_same_bits(config, one, other, foreign):
    config = replace(config, dead_window=512)
    first = stepped(replace(config, **one))
    assert same(first, stepped(replace(config, **other)))
    assert not same(first, stepped(replace(config, **foreign)))


def test_a_nest_of_one_part_trains_like_the_plain_loss(config):
    plain = stepped(replace(config, backend="reference"))
    matryoshka = stepped(replace(config, backend="reference", loss="matryoshka"))
    assert isinstance(matryoshka.optimiser, Autograd)
    whole = stepped(replace(config, backend="reference", loss="hierarchical", k=1))
    plain_of_one = stepped(replace(config, backend="reference", k=1))
    torch.testing.assert_close(whole.sae.W_enc, plain_of_one.sae.W_enc, rtol=1e-3, atol=1e-5)
    assert (matryoshka.sae.W_enc - plain.sae.W_enc).abs().max() > 1e-3


@pytest.mark.parametrize(
    "options", [{}, {"shares": "zipf"}, {"sparsify": "signed-feature-choice"}, {"beta": 1.0}]
)
def test_feature_budgets_are_met_exactly_wherever_enough_is_positive(config, options):
    config = replace(config, **{"sparsify": "feature-choice", **options})
    run = stepped(config)
    x = next(Cache(config.cache).batches([HOOK, f"{HOOK}.grad"], 256, seed=1))
    scaled = x[HOOK] / run.scale.input
    with torch.no_grad():
        code = run.sae.encode(scaled, x[f"{HOOK}.grad"] if config.beta else None, run.budget_F)
        pre = (scaled - run.sae.b_dec) @ run.sae.W_enc.T + run.sae.b_enc
    possible = ((pre != 0) if run.sae.sparsify.signed else (pre > 0)).sum(0)
    budget = run.budget_F if run.budget_F is not None else torch.full((96,), 4 * 256 // 96)
    fired = column_sums(code)[1]
    assert (budget.max() > 3 * budget.min()) == ("shares" in options)
    off = (fired - torch.minimum(possible, budget)).abs()
    assert (
        int(off.max()) == 0 if "shares" in options else int(off.max()) <= 1
    )  # 1024 pairs are 10 or 11 for each of 96


def test_a_feature_budget_that_starts_as_a_batch_budget_keeps_its_pairs_when_it_switches(config):
    out = training.train(replace(config, sparsify="feature-choice", shares="zipf", mutual=0.5))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [round(row["l0"], 1) for row in rows[10:30]] == [4.0] * 20
    assert max(row["fvu"] for row in rows[20:25]) < 1.5 * rows[19]["fvu"]


def test_runs_that_score_by_gradients_need_a_cache_of_them(config, tiny_cache):
    with pytest.raises(
        UsageError, match=r"does not hold: make a cache with `saelab capture --gradients`"
    ):
        training.train(replace(config, sparsify="g-sae", cache=str(tiny_cache)))
    assert not Path(config.out).exists()


def test_a_transcoder_scores_by_the_gradient_at_its_target(config):
    config = replace(config, target=SECOND_HOOK, sparsify="g-sae")
    runs = [
        training.train(replace(config, beta=beta, out=f"{config.out}{beta}")) for beta in (0.0, 1.0)
    ]
    assert not torch.equal(*(SAE.load(run).W_dec for run in runs))


def test_a_gradient_sae_chooses_by_the_gradient_in_training_and_never_after(config, cache):
    out = training.train(replace(config, sparsify="gradient-mutual-choice", beta=2.0))
    sae = SAE.load(out)
    assert sae.sparsify == Threshold() and sae.levels is not None
    out = training.train(replace(config, sparsify="g-sae", out=f"{config.out}2"))
    assert SAE.load(out).sparsify == Choice(4)


def test_gradients_come_with_the_activations_they_belong_to(cache):
    found = next(Cache(cache).batches([HOOK, f"{HOOK}.grad"], 500))
    pairs = {}
    for part in (False, True):
        chunks = Cache(cache).contexts(HOOK, gradients=part)
        pairs[part] = torch.cat([chunk.acts[:, 1:].flatten(0, 1) for chunk in chunks])
    places: dict[tuple, list[int]] = {}
    for i, row in enumerate(pairs[False].tolist()):
        places.setdefault(tuple(row), []).append(i)  # the first words of contexts recur
    single = [i for i, row in enumerate(found[HOOK].tolist()) if len(places[tuple(row)]) == 1]
    rows = torch.tensor([places[tuple(row)][0] for row in found[HOOK][single].tolist()])
    assert len(rows) > 300 and torch.equal(pairs[True][rows], found[f"{HOOK}.grad"][single])
    assert not torch.equal(pairs[True][rows.roll(1)], found[f"{HOOK}.grad"][single])


@pytest.mark.parametrize(
    "name",
    ["batchtopk", "signed-mutual-choice", "feature-choice", "gradient-feature-choice", "zipf"],
)
def test_the_inference_form_keeps_the_budget_on_held_out_tokens(config, cache, name):
    form = (
        {"sparsify": "feature-choice", "shares": "zipf", "mutual": 0.5}
        if name == "zipf"
        else {"sparsify": name}
    )
    sae = SAE.load(training.train(replace(config, **form)))
    x = next(Cache(cache).batches(HOOK, 400, split="held_out"))
    with torch.no_grad():
        code = sae.encode(x)
        alone = torch.cat([sae.encode(row[None]).to_dense() for row in x[:30]])
    assert torch.equal(code.to_dense()[:30], alone)
    assert len(code.values) / 400 == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize(("reach", "back"), [(10.0, True), (0.0, False)])
def test_a_feature_comes_back_whose_level_no_token_comes_near(
    reach: float, back: bool, config, monkeypatch
):
    monkeypatch.setattr("training.run.REACH", reach)
    config = replace(config, sparsify="jumprelu", features=64, dead_window=512, lr=0.01)
    stream = Cache(config.cache).batches(HOOK, config.batch)
    first = next(stream)
    run = Run(config, first, first)
    run.sae.levels.data[:8] = 20.0
    for _ in range(60):
        x = next(stream)
        run.step(x, x)
    assert bool((run.counters.silent_F[:8] < 512).any()) is back
    assert bool((run.sae.levels[:8] == 20).all()) is not back


def test_jumprelu_starts_at_its_target_and_is_held_there(config):
    config = replace(config, sparsify="jumprelu", tokens=40_960, features=64)
    out = training.train(config)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["l0"] == pytest.approx(4, rel=0.25) and rows[-1]["l0"] == pytest.approx(
        4, rel=0.25
    )
    assert rows[-1]["fvu"] < 0.6 * rows[0]["fvu"] and "l0_target" in rows[0]
    sae = SAE.load(out)
    assert isinstance(sae.sparsify, Threshold) and sae.sparsify.bandwidth == 0
    assert sae.levels.std() > 0.01 * sae.levels.mean(), (
        "they start equal and have been learned per feature"
    )


def test_more_penalty_means_smaller_activations(config):
    l1 = []
    for weight in (0.05, 4.0):
        out = training.train(
            replace(config, sparsify="relu", penalty_weight=weight, out=f"{config.out}{weight}")
        )
        row = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
        l1.append(row["l1"])
        assert row["loss"] == pytest.approx(
            row["fvu"] + weight * row["l1"] + config.aux * row["aux"], abs=1e-6
        )
    assert l1[1] < 0.7 * l1[0]


def test_gradients_are_clipped_to_a_global_norm(config):
    run = stepped(replace(config, clip=1e-3), 0)
    assert isinstance(run.optimiser, Autograd) and isinstance(stepped(config, 0).optimiser, Fused)
    x = next(Cache(config.cache).batches(HOOK, 256))
    run.step(x, x)
    # after one step the first moment is (1 - beta1) times the gradient
    norm = torch.cat([first.flatten() for first, _ in run.optimiser.moments().values()]).norm() / (
        1 - config.beta1
    )
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)


def test_the_saved_weights_are_the_moving_average(config):
    config = replace(config, ema=0.8)
    run, by_hand = stepped(config, 0), torch.zeros(96)
    stream = Cache(config.cache).batches(HOOK, 256)
    for n in range(12):
        x = next(stream)
        run.step(x, x)
        decay = min(0.8, n / (n + 1))
        by_hand = decay * by_hand + (1 - decay) * run.sae.b_enc.detach()
    final = run.final()
    torch.testing.assert_close(final.b_enc.detach(), by_hand * run.scale.input)
    torch.testing.assert_close(final.W_dec.norm(dim=1), torch.ones(96))
    assert (final.b_enc - run.sae.b_enc * run.scale.input).abs().max() > 1e-4


def test_bfloat16_parameters_train_and_are_saved_as_float32(config):
    run = stepped(replace(config, dtype="bfloat16"))
    assert all(p.dtype == torch.bfloat16 for p in run.sae.parameters())
    out = training.train(replace(config, dtype="bfloat16"))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["fvu"] < 0.7 * rows[0]["fvu"] and SAE.load(out).W_enc.dtype == torch.float32


def test_a_skip_connection_is_trained_and_saved_on_raw_activations(config, cache):
    config = replace(config, target=SECOND_HOOK, skip=True)
    out = training.train(config)
    sae = SAE.load(out)
    x = next(Cache(cache).batches([HOOK, "blocks.1.attn.o.hook_in"], 400, split="held_out"))
    y = x["blocks.1.attn.o.hook_in"]
    with torch.no_grad():
        fvu = float((y - sae(x[HOOK])).square().sum() / (y - y.mean(0)).square().sum())
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert sae.W_skip.abs().max() > 0.01 and fvu == pytest.approx(last["fvu"], rel=0.3)


VARIANTS = [
    {"sparsify": "feature-choice", "shares": "zipf", "mutual": 0.4, "ema": 0.9, "clip": 1.0},
    {
        "sparsify": "jumprelu",
        "loss": "matryoshka",
        "aux_zipf": 0.5,
        "dead_window": 1024,
        "revive": True,
    },
    {"sparsify": "g-sae", "ema": 0.99, "dead_window": 512, "revive": True, "normalise": "token"},
    {"moments": "bfloat16", "lazy": True, "dead_window": 512},
]


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("stop", [13, 29])
def test_an_interrupted_run_resumes_to_the_same_bits(config, options, stop):
    config = replace(config, checkpoint_every=10, **options)
    whole = training.train(replace(config, out=f"{config.out}-whole"))

    def interrupt(step: int, *_: object) -> None:
        if step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(config, progress=interrupt)
    again = training.train(config, resume=True)
    files = ["sae/sae.safetensors", "checkpoints/step-00000040.safetensors"]
    assert all((again / name).read_bytes() == (whole / name).read_bytes() for name in files)
