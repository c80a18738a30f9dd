"""A run ready for texts: what it is opened with, and what it says where something is gone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import saelab
from saelab import models, opening, prompting
from saelab.analysis import prompts
from saelab.analysis.dark_matter import fit, map_file
from saelab.analysis.steering import Edit
from saelab.errors import FailedRun, UsageError
from saelab.features import build
from saelab.inspection import inspect
from tests.conftest import HOOK


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run that may be changed."""
    return Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("prompting") / "run"))


@pytest.fixture(scope="module")
def bench(run: Path, tiny_cache: Path) -> prompting.Bench:
    return prompting.open(run, cache=tiny_cache)


def test_usual_values_are_the_index_s_where_it_is_of_this_sae(bench, run: Path, tiny_cache: Path):
    counted = bench.usual
    sae, cache = bench.sae, bench.cache
    about = {"tokenizer": bench.model.tokenizer, "digest": bench.folder.sae_digest()}
    build.build(sae, cache, HOOK, run / "features.db", **about)
    indexed = prompting.bench(saelab.open(run, bench.model, tiny_cache))
    both = np.isfinite(counted) & (indexed.usual > 0)
    np.testing.assert_allclose(indexed.usual[both], counted[both], rtol=1e-3)
    build.build(sae, cache, HOOK, run / "features.db", **{**about, "digest": "0" * 64})
    other = prompting.bench(saelab.open(run, bench.model, tiny_cache))
    np.testing.assert_array_equal(other.usual, counted)  # another SAE's says nothing of this one
    (run / "features.db").write_bytes(b"no index")
    damaged = prompting.bench(saelab.open(run, bench.model, tiny_cache))
    np.testing.assert_array_equal(damaged.usual, counted)
    (run / "features.db").unlink()


def test_a_text_is_begun_as_the_cache_s_contexts_are(bench):
    reading = prompting.read(bench, "alpha beta")
    assert reading.prompt.tokens[0] == bench.cache.plan.bos == 0
    assert len(reading.table.feature) == len(reading.table.effect) == 4 * len("alpha beta")
    plan = bench.cache.plan
    object.__setattr__(plan, "bos", None)
    try:
        assert prompting.prompt(bench, "alpha").first == 0
    finally:
        object.__setattr__(plan, "bos", 0)


def test_a_cache_that_is_gone_is_no_obstacle_and_is_told(tiny_run: Path, tiny_model: Path):
    folder, sae, _, model = opening.open(tiny_run, needs=("model",))
    gone = prompting.bench(opening.Opened(folder, sae, None, model), "it was deleted")
    reading = prompting.read(gone, "alpha")
    assert gone.no_cache == "it was deleted" and reading.table.usual is None
    with pytest.raises(UsageError, match="saelab index RUN"):
        prompts.strongest(reading.table, "usual")
    steering = prompting.steer(gone, "alpha", [Edit(3, "ablate")], n=2, loss_tokens=100)
    assert steering.loss is None and steering.others == []
    with pytest.raises(UsageError, match="nowhere"):
        prompting.open(tiny_run, cache="nowhere")


def test_a_next_token_may_be_named_or_is_the_most_probable(bench):
    reading = prompting.read(bench, "alpha ")
    likeliest = prompting.attribute(bench, reading)
    logits = models.running.logits(bench.model, reading.prompt.tokens[None], last=True)[0]
    assert likeliest.token == int(logits.argmax()) and likeliest.against is None
    named = prompting.attribute(bench, reading, "b", "g")
    assert (named.token, named.against) == tuple(bench.model.tokenizer("bg")["input_ids"])
    assert named.logit == pytest.approx(
        float(logits[named.token] - logits[named.against]), rel=1e-4
    )
    with pytest.raises(UsageError, match=r"'bg' cannot be the next token: .* is 2 tokens"):
        prompting.attribute(bench, reading, "bg")


def test_steering_stands_beside_controls_with_the_loss_of_each(bench):
    edits = [Edit(int(np.nanargmax(bench.densities)), "scale", 3.0)]
    steered = prompting.steer(bench, "alpha", edits, n=3, controls=2, loss_tokens=200)
    assert steered.beside.random.shape == steered.beside.others.shape == (2, 1, 3)
    assert all(edits[0].feature not in one for one in steered.others)
    names = ["steered", "random 1", "random 2", "others 1", "others 2"]
    assert list(steered.loss.changes) == names
    with pytest.raises(UsageError, match="no feature 64: this SAE has 64"):
        prompting.steer(bench, "alpha", [Edit(64, "ablate")])


# --- the linear map of the SAE's errors ----------------------------------------------------------


def kept(bench, run: Path, sae: str | None = None):
    """A map fitted on the cache, in the run's file."""
    x = torch.cat([chunk.x for chunk in bench.cache.counted(HOOK, "train", 2000)])
    with torch.no_grad():
        map = fit(x, bench.sae(x))
    map_file.write(bench.folder.dark_matter_map, map, sae or bench.folder.sae_digest())
    return map


def test_the_error_is_split_by_the_map_that_the_run_keeps(bench, run: Path):
    reading = prompting.read(bench, "alpha")
    with pytest.raises(UsageError, match=r"`saelab dark-matter .*run` makes it"):
        prompting.error_split(bench, reading)
    map = kept(bench, run)
    parts = prompting.error_split(bench, reading)
    linear = map.error(reading.read.x[2:3])
    assert float(parts.linear[2]) == pytest.approx(float(linear.norm()), rel=1e-5)
    kept(bench, run, "0" * 64)
    with pytest.raises(UsageError, match="is of another SAE than the run holds now"):
        prompting.error_split(bench, reading)


def test_a_map_comes_back_as_it_was_and_a_damaged_one_is_refused(bench, run: Path):
    map, path = kept(bench, run), bench.folder.dark_matter_map
    back = map_file.read(path)
    for name in map_file.PARTS:
        written, read = getattr(map, name), getattr(back.map, name)
        assert torch.equal(written.weight, read.weight) and torch.equal(written.bias, read.bias)
        assert (written.n_tokens, written.rank) == (read.n_tokens, read.rank)
    assert not inspect(run, verify=True).damaged
    whole = path.read_bytes()
    for at in range(0, len(whole), len(whole) // 23):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(FailedRun, match=r"dark-matter\.safetensors .*run `saelab dark-matter"):
            map_file.read(path)
        assert [file.file for file in inspect(run, verify=True).damaged] == [path.name]
    path.write_bytes(whole)
