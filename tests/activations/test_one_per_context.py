"""Each document a context of its own: padding changes nothing that is measured and is never
shown."""

import json
import random
import sqlite3
from pathlib import Path

import pytest
import torch

from apps.cli import main
from saelab import SAE, Choice, models
from saelab.activations import Cache
from saelab.activations.from_text import from_text
from saelab.activations.packing import OnePerContext
from saelab.errors import FailedRun, UsageError
from saelab.evaluation import evaluate
from saelab.features import build
from saelab.features.packing import unpack
from saelab.features.schema import ID, PLACE
from saelab.models import running
from saelab.origin import Origin
from tests.conftest import HOOK

LENGTHS = (3, 11)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 names of three to eleven letters, a token each."""
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    records = ["".join(draw.choices(letters, k=draw.randint(*LENGTHS))) for _ in range(300)]
    path = tmp_path_factory.mktemp("names") / "names.json"
    path.write_text(json.dumps(records))
    return path


@pytest.fixture(scope="module")
def bridge(tiny_model: Path):
    """The tiny model."""
    return models.load(tiny_model)


def cached(bridge, names: Path, out: Path, context: int | None, **options) -> Cache:
    """A cache of the names, each alone."""
    options = {"dtype": "float32", "pack": "one-per-context", **options}
    source = from_text(bridge, str(names), [HOOK], 300 * 12, context=context, **options)
    return Cache.write(out, source)


def test_a_document_is_padded_or_cut_to_its_context():
    packer = OnePerContext(4, bos=1, eos=2)
    packed = [
        one for n, ids in enumerate([[5, 6], [7, 8, 9, 10], []]) for one in packer.add(n, [ids])
    ]
    assert [one.tokens.tolist() for one in packed] == [[1, 5, 6, 2], [1, 7, 8, 9]]
    assert [one.owners.tolist() for one in packed] == [[0, 0, 0, 0], [1, 1, 1, 1]]
    assert [one.counted.tolist() for one in packed] == [
        [False, True, True, False],
        [False, True, True, True],
    ]
    assert packer.n_cut == 1


def test_the_context_is_what_the_longest_document_needs(bridge, names: Path, tmp_path: Path):
    cache = cached(bridge, names, tmp_path / "c", None)
    assert cache.context == 1 + LENGTHS[1] and "cut" in cache.manifest
    records = json.loads(names.read_text())
    total = cache.n_tokens("train") + cache.n_tokens("held_out")
    assert total == sum(map(len, records)) and cache.manifest["cut"] == 0


def test_activations_and_gradients_are_those_of_the_document_alone(
    bridge, names: Path, tmp_path: Path
):
    cache = cached(bridge, names, tmp_path / "c", 12, gradients=True)
    chunk = next(cache.contexts(HOOK))
    slopes = next(cache.contexts(HOOK, gradients=True)).acts
    for row in range(5):
        length = 1 + int(chunk.counted[row].sum())
        alone = running.gradients(bridge, chunk.tokens[row : row + 1, :length], [HOOK])
        for mine, theirs in ((chunk.acts, HOOK), (slopes, f"{HOOK}.grad")):
            torch.testing.assert_close(mine[row, :length], alone[theirs][0], rtol=1e-4, atol=1e-5)
        assert bool((slopes[row, length:] == 0).all())


def test_more_padding_changes_no_number_of_a_report(bridge, names: Path, tmp_path: Path):
    sae = SAE(32, 16, Choice(2), seed=3)
    sae.origin = Origin(hook=HOOK)
    reports = []
    for context in (12, 20):
        # 300 contexts either way
        source = from_text(
            bridge, str(names), [HOOK], 300 * context,
            context=context, dtype="float32", pack="one-per-context",
        )  # fmt: skip
        cache = Cache.write(tmp_path / str(context), source)
        reports.append(evaluate(sae, cache, bridge))
    short, long = reports
    assert short["tokens"] == long["tokens"] and short["documents"] == long["documents"] > 5
    for key in ("fvu", "l0", "kl", "ce_recovered"):
        assert short[key]["value"] == pytest.approx(long[key]["value"], rel=1e-4), key
    assert short["ce_clean"] == pytest.approx(long["ce_clean"], rel=1e-5)


def test_the_index_shows_and_finds_no_padding(bridge, names: Path, tmp_path: Path):
    cache = cached(bridge, names, tmp_path / "c", 20)
    sae = SAE(32, 16, Choice(2), seed=3)
    path = tmp_path / "features.db"
    summary = build.build(sae, cache, HOOK, path, tokenizer=bridge.tokenizer)
    assert summary["n_tokens"] == cache.n_tokens()
    records = set(json.loads(names.read_text()))
    with sqlite3.connect(path) as connection:
        rows = connection.execute("select tokens, documents from context").fetchall()
        seen = connection.execute("select sum(seen) from token").fetchone()[0]
        places = connection.execute("select examples from context").fetchall()
    assert (
        rows
        and seen == cache.n_tokens()
        and max(unpack(b, PLACE)["position"].max() for (b,) in places) <= LENGTHS[1]
    )
    for tokens, documents in rows:
        ids = unpack(tokens, ID).tolist()
        assert bridge.tokenizer.decode(ids[1:]) in records
        assert len(json.loads(documents)) == 1


def test_the_command_says_how_many_documents_it_cut(
    tiny_model: Path, names: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    asked = ["capture", "--model", str(tiny_model), "--text", str(names), "--hook", HOOK]
    asked += ["--tokens", "1800", "--out", str(tmp_path / "c"), "--pack"]
    assert main([*asked, "one-per-context", "--context", "6"]) == 0
    too_long = sum(len(name) > 5 for name in json.loads(names.read_text()))
    assert (
        f"{too_long} documents were longer than a context and were cut" in capsys.readouterr().out
    )
    assert Cache(tmp_path / "c").manifest["cut"] == too_long
    assert main([*asked, "one-per-line"]) == 2
    assert "'documents', 'one-per-context'" in capsys.readouterr().err


def test_a_packing_that_nobody_knows_is_refused(bridge):
    with pytest.raises(UsageError, match="no packing 'tight'"):
        from_text(bridge, "stdlib", [HOOK], 1000, pack="tight")


def test_a_mask_that_was_damaged_is_refused_before_it_decides_the_order(
    bridge, names: Path, tmp_path: Path
):
    cache = cached(bridge, names, tmp_path / "c", None)
    shard = tmp_path / "c" / cache.shards("train")[-1]["file"]
    whole = shard.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    first = 8 + size + json.loads(whole[8 : 8 + size])["counted"]["data_offsets"][0]
    for at in (first, whole.index(b'"counted"') + 1):  # position 0 of a context; the name
        shard.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(FailedRun, match=f"{shard.name} of .* was altered"):
            cache.batches(HOOK, 10)
