"""The cache: what it holds is what the model computed, reads are shuffled and resumable, damage is
named."""

import json
import re
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from saelab import models
from saelab.activations import Cache, disk, writer
from saelab.activations.from_text import from_text
from saelab.activations.moments import of_rows
from saelab.activations.packing import pack
from saelab.errors import FailedRun, UsageError
from saelab.files import write_json
from saelab.models import running
from tests.conftest import HOOK, SECOND_HOOK, make_cache, make_model
from tests.killing import run

CANONICAL = "blocks.0.hook_out"


@pytest.fixture
def opened(tiny_cache: Path) -> Cache:
    """The session's cache."""
    return Cache(tiny_cache)


def test_documents_are_packed_after_bos_and_before_end_of_text():
    packed = list(pack([(0, [5, 6]), (1, [7, 8, 9, 10])], 4, bos=1, eos=2))
    assert [one.tokens.tolist() for one in packed] == [[1, 5, 6, 2], [1, 7, 8, 9]]
    assert [one.owners.tolist() for one in packed] == [[0, 0, 0, 0], [1, 1, 1, 1]]


def test_cached_activations_are_the_models_own(opened: Cache, tiny_model: Path):
    chunk = next(opened.contexts(HOOK))
    z = next(opened.contexts(SECOND_HOOK)).acts
    bridge = models.load(tiny_model)
    _, seen = bridge.run_with_cache(chunk.tokens[:3])
    torch.testing.assert_close(chunk.acts[:3], seen[CANONICAL], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(z[:3], seen["blocks.1.attn.hook_z"].flatten(2), rtol=1e-4, atol=1e-5)
    assert chunk.tokens[:, 0].eq(0).all()
    assert opened.manifest["hooks"][SECOND_HOOK]["shape"] == [4, 8]


def test_a_context_holds_documents_of_one_split(opened: Cache):
    from saelab.documents import held_out

    names = opened.document_names()
    for split in ("train", "held_out"):
        numbers = {
            int(n) for chunk in opened.contexts(HOOK, split) for n in chunk.documents.unique()
        }
        assert numbers and all(held_out(names[n]) == (split == "held_out") for n in numbers)


def test_so_many_positions_are_held_out_as_are_asked_for(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, opened: Cache
):
    """The other split has the rest, and the same documents' tokens in the same order."""
    context = opened.context
    asked = {"n_tokens": 20 * context, "n_held_out": 2 * context - 1}
    cache = Cache(make_cache(tiny_model, tiny_corpus, tmp_path / "c", **asked))
    for split, n_contexts in (("train", 18), ("held_out", 2)):
        mine, theirs = (next(one.contexts(HOOK, split)).tokens for one in (cache, opened))
        assert cache.n_tokens(split) == n_contexts * (context - 1)
        n = min(len(mine), len(theirs))
        assert torch.equal(mine[:n], theirs[:n])
    with pytest.raises(UsageError, match="leaves no context of"):
        make_cache(tiny_model, tiny_corpus, tmp_path / "d", n_tokens=4_000, n_held_out=4_000)


def test_an_epoch_of_batches_is_a_shuffle_of_all_tokens_but_position_0(opened: Cache):
    every = torch.cat([chunk.acts[:, 1:].flatten(0, 1) for chunk in opened.contexts(HOOK)])
    stream = opened.batches(HOOK, 100, seed=3)
    epoch = torch.cat([next(stream) for _ in range(stream.per_epoch)])
    key = lambda rows: set(map(tuple, rows.numpy().round(4).tolist()))  # noqa: E731
    assert len(epoch) == len(every) // 100 * 100
    assert key(epoch) <= key(every) and len(key(every) - key(epoch)) <= 100
    assert not torch.equal(epoch[:500], every[:500])
    following = torch.cat([next(stream) for _ in range(stream.per_epoch)])
    assert not torch.equal(following, epoch)


@pytest.mark.parametrize("start", [0, 1, 77, 150, 400])
def test_batches_go_on_from_any_number(opened: Cache, start: int, monkeypatch: pytest.MonkeyPatch):
    from saelab.activations import shuffled

    monkeypatch.setattr(shuffled, "BUFFER", 3_000)
    straight, skipped = (
        opened.batches(HOOK, 100, seed=1),
        opened.batches(HOOK, 100, seed=1, start=start),
    )
    for _ in range(start):
        next(straight)
    for _ in range(5):
        assert torch.equal(next(straight), next(skipped))


def test_hooks_read_together_are_of_the_same_tokens(opened: Cache):
    both = next(opened.batches([HOOK, SECOND_HOOK], 50, seed=1))
    assert torch.equal(both[HOOK], next(opened.batches(HOOK, 50, seed=1)))
    assert both[SECOND_HOOK].shape == (50, 32)


def test_moments_are_those_of_the_tokens(opened: Cache):
    rows = torch.cat([chunk.acts[:, 1:].flatten(0, 1) for chunk in opened.contexts(HOOK)]).double()
    moments = opened.moments(HOOK)
    assert moments.n == len(rows) == opened.n_tokens("train")
    torch.testing.assert_close(moments.sum, rows.sum(0))
    expected, mean = rows.T @ rows, rows.mean(0)
    variance = expected.diag() / len(rows) - mean**2
    off = (moments.second - expected).abs() / len(rows)
    assert float((off / torch.outer(variance, variance).sqrt()).max()) < 1e-6


def test_moments_of_numbers_far_from_zero_keep_their_covariance():
    rows = torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    rows[:, 3] += 3000  # as some dimensions of real models lie
    found = of_rows(rows)
    exact, plain = rows.double(), rows.T @ rows

    def covariance(second: torch.Tensor) -> torch.Tensor:
        mean = exact.mean(0)
        return second.double() / len(rows) - torch.outer(mean, mean)

    truth = covariance(exact.T @ exact)
    assert float((covariance(found["second"]) - truth).abs().max()) < 1e-4  # variances are about 1
    torch.testing.assert_close(found["sum"], exact.sum(0), rtol=1e-6, atol=1e-4)
    assert float((covariance(plain) - truth).abs().max()) > 0.1  # float32 alone loses it


def test_gradients_are_those_of_the_contexts_loss(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path
):
    opened = Cache(
        make_cache(
            tiny_model, tiny_corpus, tmp_path / "c", n_tokens=6_000, gradients=True, hooks=[HOOK]
        )
    )
    acts, grads = next(opened.contexts(HOOK)), next(opened.contexts(HOOK, gradients=True))
    bridge = models.load(tiny_model)
    step = 1e-2 * torch.nn.functional.normalize(grads.acts[0, 5], dim=0)

    def loss(shift: torch.Tensor) -> float:
        def edit(x, hook):
            x = x.clone()
            x[0, 5] += shift
            return x

        tokens = acts.tokens[:1]
        logits = bridge.run_with_hooks(tokens, fwd_hooks=[(HOOK, edit)]).double()
        return float(
            torch.nn.functional.cross_entropy(logits[0, :-1], tokens[0, 1:], reduction="sum")
        )

    slope = (loss(step) - loss(-step)) / 2e-2
    assert slope == pytest.approx(float(grads.acts[0, 5].norm()), rel=0.02)


def damaged(tiny_cache: Path, tmp_path: Path) -> Path:
    """A copy of the cache that may be changed."""
    return Path(shutil.copytree(tiny_cache, tmp_path / "copy"))


def test_a_shard_that_is_missing_cut_or_altered_is_named(tiny_cache: Path, tmp_path: Path):
    folder = damaged(tiny_cache, tmp_path)
    shard = folder / "00001.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-7])
    with pytest.raises(FailedRun, match=r"00001\.safetensors of .* was cut or changed"):
        Cache(folder)
    shard.unlink()
    with pytest.raises(FailedRun, match=r"00001\.safetensors of .* is missing"):
        Cache(folder)
    shard.write_bytes(whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:])
    Cache(folder)  # sizes are right: only verify reads the bytes
    with pytest.raises(FailedRun, match=r"00001\.safetensors of .* was altered"):
        Cache(folder).verify()
    shard.write_bytes(whole)
    Cache(folder).verify()


def test_folders_that_are_no_finished_cache_are_refused(tiny_cache: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"no manifest\.json"):
        Cache(tmp_path)
    folder = damaged(tiny_cache, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", {**manifest, "complete": False})
    with pytest.raises(UsageError, match="unfinished"):
        Cache(folder)
    write_json(folder / "manifest.json", {**manifest, "schema": "saelab/cache/0"})
    with pytest.raises(UsageError, match="saelab/cache/0"):
        Cache(folder)


def test_a_cache_says_which_model_made_it(opened: Cache, tmp_path: Path):
    mine = models.identity(opened.manifest["model"]["name"])
    assert opened.identity == mine
    assert mine.differs(models.identity(make_model(tmp_path / "other", seed=1))) == "weights"


def test_unknown_hooks_and_oversized_batches_are_refused(opened: Cache):
    with pytest.raises(
        UsageError,
        match=r"holds no hook 'blocks\.9\.hook_out'; it holds blocks\.0\.hook_resid_post",
    ):
        opened.width("blocks.9.hook_out")
    with pytest.raises(
        UsageError, match=r"a batch of 99999 tokens is more than the \d+ train tokens"
    ):
        opened.batches(HOOK, 99_999)


def test_a_finished_capture_has_nothing_left_to_do_and_other_settings_are_refused(
    tiny_cache: Path, tiny_model: Path, tiny_corpus: Path
):
    before = {p.name: p.stat().st_mtime_ns for p in tiny_cache.iterdir()}
    make_cache(tiny_model, tiny_corpus, tiny_cache)
    assert before == {p.name: p.stat().st_mtime_ns for p in tiny_cache.iterdir()}
    with pytest.raises(
        UsageError, match=r"other settings \(asked / held\): n_tokens: 12000 / 16000"
    ):
        make_cache(tiny_model, tiny_corpus, tiny_cache, n_tokens=12_000)


def test_values_a_dtype_cannot_hold_stop_the_capture(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bridge = models.load(tiny_model)
    source = from_text(bridge, str(tiny_corpus), [HOOK], 8_000)
    original = running.read
    monkeypatch.setattr(
        running, "read", lambda *args: {k: v * 1e5 for k, v in original(*args).items()}
    )
    with pytest.raises(
        FailedRun,
        match=r"hook_resid_post reaches .*, more than float16 holds: capture with --dtype float32",
    ):
        writer.write(source, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_full_disk_is_reported_and_leaves_no_temporary_file(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path
):
    def work():
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (100_000, 100_000)
        )  # writing beyond it fails as on a full disk
        try:
            make_cache(tiny_model, tiny_corpus, tmp_path / "c")
        except FailedRun as error:
            (tmp_path / "said").write_text(str(error))

    run(work)
    said = (tmp_path / "said").read_text()
    assert re.search(r"disk full: .*00000\.safetensors needs 540,672 more bytes; .* resume", said)
    assert not (tmp_path / "c").exists()
    assert Cache(make_cache(tiny_model, tiny_corpus, tmp_path / "c")).n_tokens() > 0


def test_a_cache_that_cannot_fit_is_refused_before_anything_is_written(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UsageError, match=r"needs [\d,]+ more bytes, .* has 1,000 free"):
        make_cache(tiny_model, tiny_corpus, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_only_whole_numbers_of_positions_are_packed():
    tokens = np.arange(3, 40)
    packed = list(pack([(0, tokens.tolist())], 8, bos=1, eos=2))
    assert len(packed) == (len(tokens) + 1) // 7


def test_a_cache_keeps_the_names_asked_for_and_answers_to_the_others(tiny_model: Path):
    asked = ["blocks.0.hook_resid_mid", "blocks.0.ln2.hook_in", "blocks.1.hook_out"]
    plan = from_text(models.load(tiny_model), "stdlib", asked, 1000).plan
    assert list(plan.hooks) == ["blocks.0.hook_resid_mid", "blocks.1.hook_out"]
    assert plan.hooks["blocks.1.hook_out"]["aliases"] == ["blocks.1.hook_resid_post"]
    assert plan.hooks["blocks.0.hook_resid_mid"]["aliases"] == ["blocks.0.ln2.hook_in"]


def test_a_cache_of_canonical_names_answers_to_the_names_asked_for(
    tiny_cache: Path, tmp_path: Path
):
    """As caches were written before names were kept as asked."""
    old = Path(shutil.copytree(tiny_cache, tmp_path / "old"))
    manifest = json.loads((old / "manifest.json").read_text())
    names = {HOOK: CANONICAL, SECOND_HOOK: "blocks.1.attn.o.hook_in"}
    manifest["hooks"] = {
        names[name]: {**entry, "aliases": [name]} for name, entry in manifest["hooks"].items()
    }
    manifest["settings"]["hooks"] = list(names.values())
    write_json(old / "manifest.json", manifest)
    cache = Cache(old)
    assert cache.hooks == list(names.values())
    assert cache.resolve(HOOK) == CANONICAL and cache.width(SECOND_HOOK) == 32
