"""`saelab compress`: what is written has the stated bytes, loads, and costs what is said."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from apps.cli import main
from saelab import models
from saelab.activations import Cache
from saelab.analysis import compression
from saelab.analysis.compression.effect import losses_of
from saelab.errors import FailedRun
from saelab.inspection import inspect
from saelab.models import factors, running
from tests import schemas

SMALL = ["--ridge", "1e-6", "--rounds", "2", "--tokens", "2000", "--held-out", "400", "--json"]


@pytest.fixture(scope="module")
def written(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compressed by half, two layers to a dictionary."""
    out = tmp_path_factory.mktemp("compressed") / "out"
    words = ["compress", "--cache", str(tiny_cache), "--out", str(out), "--ratio", "0.5"]
    assert main([*words, "--group", "2", *SMALL]) == 0
    return out


def test_the_document_says_what_is_stored(written: Path, tiny_cache: Path):
    told = json.loads((written / "compress.json").read_text())
    schemas.check(told, "compress")
    tensors = load_file(written / "factors" / factors.NAME)
    stored = sum(t.nbytes for name, t in tensors.items() if name.startswith("factors."))
    assert (
        stored == told["bytes"]["compressed"] == sum(-(-m["bits"] // 8) for m in told["matrices"])
    )
    assert 2000 <= told["tokens"] <= Cache(tiny_cache).n_tokens("train")
    assert 0.45 < stored / told["bytes"]["matrices"] <= 0.5
    assert [len(row["names"]) for row in told["matrices"]] == [2] * 4
    assert not {row["names"][0] for row in told["matrices"]} & set(tensors)
    assert told["loss"]["difference"]["value"] == pytest.approx(
        told["loss"]["compressed"]["value"] - told["loss"]["original"]["value"]
    )
    for row in told["matrices"]:
        assert all(0 < change["low"] <= change["value"] < 1 for change in row["changes"])


def test_factors_and_the_plain_folder_are_one_model(written: Path, tiny_model: Path):
    whole = models.load(tiny_model)
    small, plain = (models.load(written / name) for name in ("factors", "dense"))
    tokens = torch.arange(1, 61).view(2, 30)
    mine, theirs, before = (running.logits(model, tokens) for model in (small, plain, whole))
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    assert float((mine - before).abs().max()) > 0.1
    for one in compression.matrices(whole):
        assert torch.equal(one.weight(small), one.weight(plain))
    assert torch.equal(small.plain.transformer.wte.weight, whole.plain.transformer.wte.weight)
    assert models.identity(small).tokenizer_hash == models.identity(whole).tokenizer_hash


def test_the_loss_that_is_said_is_the_loaded_models(
    written: Path, tiny_cache: Path, tiny_model: Path
):
    told = json.loads((written / "compress.json").read_text())["loss"]
    small, cache = models.load(written / "factors"), Cache(tiny_cache)
    _, table = losses_of([small], cache, 400)
    assert table["0"].sum() / table["n"].sum() == pytest.approx(told["compressed"]["value"])
    _, other = losses_of([models.load(tiny_model)], cache, 400)
    assert other["0"].sum() / other["n"].sum() != pytest.approx(told["compressed"]["value"])


def test_a_flipped_bit_of_the_factors_is_refused_by_name(written: Path, tmp_path: Path):
    file = written / "factors" / factors.NAME
    groups, others = factors.read(file)
    again = tmp_path / factors.NAME
    factors.write(again, groups, others)
    read, _ = factors.read(again)
    for one, other in zip(groups, read, strict=True):
        assert one.parts == other.parts
        assert torch.equal(one.factors.product_IO, other.factors.product_IO)
    assert not inspect(written / "factors", verify=True).damaged
    whole = bytearray(again.read_bytes())
    whole[-5] ^= 1
    again.write_bytes(whole)
    with pytest.raises(FailedRun, match=r"factors\.safetensors was altered"):
        factors.read(again)
    shutil.copytree(written / "factors", tmp_path / "copy")
    shutil.copyfile(again, tmp_path / "copy" / factors.NAME)
    assert [file.file for file in inspect(tmp_path / "copy", verify=True).damaged] == [factors.NAME]


def test_what_is_wrong_is_said(
    tiny_cache: Path, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    def said(*words: str) -> tuple[int, str]:
        code = main(["compress", "--cache", str(tiny_cache), *words])
        return code, capsys.readouterr().err

    code, error = said("--out", str(tmp_path / "x"), "--tokens", "500")
    assert code == 2 and "blocks.0.attn.hook_in have rank 31 of 32" in error
    assert not (tmp_path / "x").exists()
    code, error = said("--out", str(written))
    assert code == 2 and "exists and is not empty" in error
    code, error = said("--out", str(tmp_path / "y"), "--model", str(written / "dense"))
    assert code == 2 and "another model" in error
    code, error = said()
    assert code == 2 and "name a cache and a folder" in error
