"""Training without a cache: the ring holds what a cache would, a killed run goes on bit for bit,
and what a run keeps lets every later verb work."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import saelab
import training
from apps.cli import main
from saelab import SAE, models
from saelab.activations import Cache
from saelab.activations import live as live_
from saelab.activations.from_text import from_text
from saelab.activations.text import Text
from saelab.errors import FailedRun
from saelab.kernels import backend
from saelab.runs import RunFolder
from tests.conftest import HOOK, SECOND_HOOK
from tests.faults.kills import differing
from tests.killing import run as run_in_fork
from tests.pretend import pretend_accelerator
from tests.training.test_interruption import die, killed
from training import live, rate

N_STEPS, BATCH, RING, CONTEXT = 40, 128, 48 * 32, 32


@pytest.fixture(scope="module")
def config(tiny_model: Path, tiny_corpus: Path) -> training.Config:
    """40 steps on four windows, with a checkpoint after each 8."""
    return training.Config(
        live=True,
        model=str(tiny_model),
        text=str(tiny_corpus),
        hook=HOOK,
        features=64,
        k=4,
        tokens=N_STEPS * BATCH,
        batch=BATCH,
        ring=RING,
        keep=4000,
        checkpoint_every=8,
        log_every=3,
    )


@pytest.fixture(scope="module")
def whole(config: training.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody interrupts."""
    return training.train(replace(config, out=str(tmp_path_factory.mktemp("whole") / "run")))


def differs(out: Path, whole: Path) -> list[str]:
    """What differs between two runs, the kept cache included; where they lie apart."""
    return [name for name in differing(out, whole) if name not in ("config.yaml", "sae/sae.json")]


@pytest.fixture
def ring(tiny_model: Path, tiny_corpus: Path) -> live_.Live:
    """A ring of both hooks."""
    hooks = [HOOK, SECOND_HOOK]
    source = from_text(models.load(tiny_model), str(tiny_corpus), hooks, 10**9, dtype="float32")
    return live_.Live(source, RING, "cpu")


def sorted_rows(x_ND: torch.Tensor) -> torch.Tensor:
    """Its rows in the order of their first number."""
    return x_ND[x_ND[:, 0].argsort()]


def test_each_window_is_a_shuffle_of_the_contexts_that_a_cache_holds(
    ring: live_.Live, tiny_cache: Path
):
    """And so none of a held-out document."""
    cached = torch.cat([chunk.acts for chunk in Cache(tiny_cache).contexts(HOOK)])
    per_window = 48 * (CONTEXT - 1)
    batches = ring.batches([HOOK], per_window, seed=3)
    for number in range(len(cached) // 48):
        x_ND = next(batches)[HOOK]
        expected_ND = cached[number * 48 : number * 48 + 48, 1:].flatten(0, 1)
        torch.testing.assert_close(sorted_rows(x_ND), sorted_rows(expected_ND))
        assert not torch.equal(x_ND[:50], expected_ND[:50])


@pytest.mark.parametrize("start", [1, 11, 12, 30, 300])
def test_batches_go_on_from_any_number(ring: live_.Live, start: int):
    """Within a window, astride two of them, and in a later epoch."""
    straight = ring.batches([HOOK, SECOND_HOOK], BATCH, seed=1)
    wanted = [next(straight) for _ in range(start + 2)][start:]
    later = ring.batches([HOOK, SECOND_HOOK], BATCH, seed=1, start=start)
    for expected in wanted:
        got = next(later)
        assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_a_second_epoch_has_the_same_tokens_in_another_order(ring: live_.Live):
    size = 48 * (CONTEXT - 1)
    batches = ring.batches([HOOK], size)
    first = next(batches)[HOOK]
    while ring.epoch is None:
        next(batches)
    windows, _ = ring.epoch
    assert ring.holds == windows, "the first window of the second epoch is in the ring"
    again = ring.batches([HOOK], size, start=0)
    assert torch.equal(next(again)[HOOK], first)
    ring.fill(next(ring.windows(ring.epoch[1]))[0])
    second = ring.ring[HOOK].values[:, 1:].flatten(0, 1)
    torch.testing.assert_close(sorted_rows(second), sorted_rows(first))


@pytest.mark.parametrize("step", [5, 26])
def test_a_killed_run_goes_on_bit_for_bit(config, whole: Path, tmp_path: Path, step: int):
    mine = replace(config, out=str(tmp_path / "run"))
    killed(mine, step)
    assert differs(tmp_path / "run", whole)
    training.train(mine, resume=True)
    assert differs(tmp_path / "run", whole) == []


def test_a_ring_that_is_not_refilled_would_be_caught(
    config, whole: Path, tmp_path: Path, monkeypatch
):
    mine = replace(config, out=str(tmp_path / "run"))
    killed(mine, 26)
    right = live_.Live.windows

    def first_window(ring: live_.Live, n_skipped: int) -> Iterator[tuple[live_.Window, int]]:
        return right(ring, n_skipped % RING)

    monkeypatch.setattr(live_.Live, "windows", first_window)
    training.train(mine, resume=True)
    assert "metrics.jsonl" in differs(tmp_path / "run", whole)


def test_a_run_killed_while_its_cache_is_written_goes_on_when_repeated(
    config, whole: Path, tmp_path: Path, monkeypatch
):
    mine = replace(config, out=str(tmp_path / "run"))
    run_in_fork(lambda: training.train(mine, keeping=lambda n: die() if n > 2000 else None))
    training.train(mine)
    assert differs(tmp_path / "run", whole) == []


def test_another_text_is_refused_where_it_differs(
    config, whole: Path, tiny_corpus: Path, tmp_path: Path
):
    text = Path(shutil.copytree(tiny_corpus, tmp_path / "text"))
    mine = replace(config, out=str(tmp_path / "run"), text=str(text))
    killed(mine, 39)
    names = [document.name for document in Text(str(text)).documents()]
    late = text / names[13]  # behind what is kept, of 125 contexts, and in the last window
    late.write_text(late.read_text().replace("alpha", "omega"))
    with pytest.raises(FailedRun, match=r"the text is not what it was .* training contexts \d+ to"):
        training.train(mine, resume=True)


def test_a_live_run_is_as_good_as_one_on_a_cache_of_the_same_text(
    config, tiny_cache: Path, tmp_path: Path
):
    tokens, lr = 150 * BATCH, 0.003
    live = replace(config, tokens=tokens, lr=lr, out=str(tmp_path / "live"))
    options = {name: getattr(training.Config, name) for name in ("live", "model", "text", "ring")}
    cached = replace(live, **options, keep=training.Config.keep, cache=str(tiny_cache))
    x = torch.cat([chunk.x for chunk in Cache(tiny_cache).counted(HOOK, "held_out")])
    fvu = []
    for one in (live, replace(cached, out=str(tmp_path / "cached"))):
        sae = SAE.load(training.train(one))
        with torch.no_grad():
            error = x - sae(x)
        fvu.append(float(error.square().sum() / (x - x.mean(0)).square().sum()))
    assert fvu[0] == pytest.approx(fvu[1], rel=0.1), fvu


def test_later_verbs_need_no_more_than_the_run(whole: Path, tmp_path: Path, capsys):
    run = Path(shutil.copytree(whole, tmp_path / "moved"))
    assert main(["eval", str(run), "--tokens", "30", "--json"]) == 0
    assert main(["index", str(run), "--tokens", "500"]) == 0
    capsys.readouterr()
    assert main(["info", str(run), "--verify", "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert seen["facts"]["kept cache"]["tokens"]["train"] > 3000
    opened = saelab.open(run)
    assert opened.cache.path == run / "cache" and opened.cache.moments(HOOK).n > 3000


def test_several_hooks_are_trained_in_one_pass_over_the_text(config, tmp_path: Path):
    words = ["train", "--live", "--model", config.model, "--text", config.text]
    words += ["--hook", HOOK, f"--hook={SECOND_HOOK}", "--features", "64", "--k", "4"]
    words += ["--tokens", "5120", "--batch", "128", "--ring", str(RING), "--keep", "4000"]
    out = tmp_path / "runs"
    assert main([*words, "--out", str(out)]) == 0
    folders = [RunFolder(out / f"hook={name}") for name in (HOOK, SECOND_HOOK)]
    first, second = (SAE.load(folder.path) for folder in folders)
    assert (first.origin.hook, second.origin.hook) == (HOOK, SECOND_HOOK)
    for folder in folders:
        assert set(Cache(folder.cache).hooks) == {HOOK, SECOND_HOOK}
    alone = replace(config, out=str(folders[1].path), hook=SECOND_HOOK)
    shutil.rmtree(folders[1].sae)
    training.train(replace(alone, checkpoint_every=500), resume=True)
    assert torch.equal(SAE.load(folders[1].path).W_dec, second.W_dec)


def test_a_ring_has_the_models_dtype_and_later_verbs_follow_it(config, tmp_path: Path):
    options = {"model_dtype": "bfloat16", "tokens": 1024, "out": str(tmp_path / "run")}
    run = RunFolder(training.train(replace(config, **options)))
    plan = Cache(run.cache).plan
    assert (plan.dtype, plan.model_dtype) == ("bfloat16", "bfloat16")
    _, ring = live.begin([replace(config, **options)], resume=True)
    next(ring.batches([HOOK], 128))
    assert ring.ring[HOOK].values.dtype == torch.bfloat16


def test_gradients_come_with_the_ring(config, tmp_path: Path):
    out = training.train(replace(config, sparsify="g-sae", out=str(tmp_path / "run"), tokens=1024))
    assert SAE.load(out).origin.sparsify == "g-sae"


def test_a_live_run_on_another_device_is_that_on_the_cpu(config, tmp_path: Path):
    config = replace(config, backend="reference", tokens=12 * BATCH)
    away = replace(config, out=str(tmp_path / "away"), device="pretend")
    with pretend_accelerator():
        there = training.train(away)
    with backend("reference"):
        here = training.train(replace(config, out=str(tmp_path / "here"), device="cpu"))
    mine, theirs = ([row["fvu"] for row in rate.rows(folder)] for folder in (there, here))
    assert mine == pytest.approx(theirs, rel=1e-3) and len(theirs) > 3  # attention rounds otherwise


BAD = [
    ({"cache": "caches/a"}, "cache=caches/a and live exclude each other"),
    ({"hook": None}, "no hook named: --hook NAME"),
    ({"hook": "blocks.9.hook_out"}, "blocks.9.hook_out"),
    ({"text": "no/such/folder"}, "no such text file or folder: no/such/folder"),
    ({"ring": 100_000}, "training positions, a ring of 100000 is not full once: --ring"),
    ({"ring": 100}, "ring=100 is less than one batch: --ring 128 or more"),
    ({"keep": 0}, "keep"),
    ({"keep": 200}, "keep=200 is less than two batches of 128: --keep 256 or more"),
    ({"batch": 32, "keep": 64}, "keep=64 gives 31 training tokens, less than one batch of 32"),
    ({"live": False}, "no cache named: --cache DIR"),
    ({"live": False, "cache": "caches/a"}, "is for --live: a cache has its own"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_what_cannot_be_meant_is_refused(
    config, fields: dict[str, Any], message: str, tmp_path: Path, capsys
):
    given = replace(config, out=str(tmp_path / "run"), **fields)
    names = ("cache", "model", "text", "hook", "batch", "tokens", "ring", "keep", "out")
    pairs = [(f"--{name}", str(value)) for name in names if (value := getattr(given, name))]
    pairs += [("--keep", "0")] * (given.keep == 0)
    words = [word for pair in pairs for word in pair] + ["--live"] * given.live
    assert main(["train", *words, "--features", "64", "--k", "4"]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "run" / "config.yaml").exists()
