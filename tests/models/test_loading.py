"""Finding and loading models: what is tried, what is refused, and that no name makes anyone
wait."""

import json
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModel, AutoModelForCausalLM

from saelab import models
from saelab.errors import FailedRun, UsageError
from saelab.models import hub, loading
from saelab.origin import Identity
from tests.conftest import ROOT


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch):
    """Any use of the network fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"the network was used: {args}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that may be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def test_a_local_model_loads_in_float32_without_gradients_or_network(tiny_model: Path, no_network):
    bridge = models.load(tiny_model)
    assert {p.dtype for p in bridge.parameters()} == {torch.float32}
    assert not bridge.training and not any(p.requires_grad for p in bridge.parameters())


def test_a_real_llama_agrees_with_transformers(assets: Path, no_network):
    from transformers import AutoModelForCausalLM

    tokens = torch.arange(3, 43).reshape(2, 20)
    with torch.no_grad():
        ours = models.load(assets / "stories260K")(tokens)
        theirs = AutoModelForCausalLM.from_pretrained(assets / "stories260K", dtype=torch.float32)(
            tokens
        ).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_network_guard_notices_a_connection(no_network):
    with pytest.raises(AssertionError, match="the network was used"):
        socket.create_connection(("localhost", 9))


def test_an_unknown_model_is_refused_within_three_seconds_though_the_name_server_hangs(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *args, **kwargs: time.sleep(8))
    started = time.perf_counter()
    with pytest.raises(UsageError) as error:
        models.load("nobody/no-such-model")
    assert time.perf_counter() - started < 3
    for words in (
        "no such folder",
        "not in the local hub cache",
        "the hub is unreachable",
        "`bundled`",
    ):
        assert words in str(error.value)


def test_an_unknown_model_is_refused_before_anything_heavy_is_imported():
    code = (
        "import sys; from apps.cli import main\nassert main(['capture', '--model', "
        "'nobody/no-such-model', '--hook', 'x']) == 2\nprint([name for name in ('torch', "
        "'transformers', 'transformer_lens') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"HF_HUB_OFFLINE": "1"},
    )
    assert done.stdout.strip() == "[]", done.stderr
    assert "unknown model 'nobody/no-such-model'" in done.stderr.splitlines()[-1]
    assert "switched off by HF_HUB_OFFLINE" in done.stderr


def test_a_name_the_hub_does_not_know_is_told_from_a_hub_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(hub, "has", lambda name, kind: "no")
    with pytest.raises(UsageError, match="the hub has none of that name"):
        models.load("nobody/no-such-model")


def test_a_snapshot_in_the_hub_cache_is_used_without_asking_the_hub(
    tiny_model: Path, tmp_path: Path, monkeypatch, no_network
):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = Path(
        shutil.copytree(tiny_model, tmp_path / "models--some--model" / "snapshots" / commit)
    )
    monkeypatch.setattr(hub, "cached", lambda name: snapshot if name == "some/model" else None)
    identity = models.identity(models.load("some/model"))
    assert (identity.name, identity.revision) == ("some/model", commit)


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_the_folder_lacks_is_named(copy: Path, lost: str):
    (copy / lost).unlink()
    with pytest.raises(UsageError, match=rf"is not a model folder: it lacks {lost}$"):
        models.load(copy)


def test_a_shard_that_the_weight_index_names_is_missed(copy: Path):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    assert loading.missing_files(copy) == ["model-1.safetensors"]


def test_damaged_weights_are_reported_as_damage(copy: Path):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(FailedRun, match=r"model\.safetensors cannot be read: .*[Ii]ncomplete"):
        models.load(copy)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", "cuda:7", "gpu"])
def test_a_device_that_is_not_here_is_refused_and_not_blamed_on_files(device: str, copy: Path):
    with pytest.raises(UsageError, match=f"there is no device '{device}' here .*--device cpu"):
        models.load(copy, device)


def test_an_architecture_transformer_lens_does_not_know_is_refused(copy: Path):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(
        json.dumps({**config, "architectures": ["CTRLLMHeadModel"], "model_type": "ctrl"})
    )
    with pytest.raises(UsageError, match="cannot be loaded"):
        models.load(copy)


def test_the_identity_follows_the_weights_and_the_tokenizer(tiny_model: Path, copy: Path):
    mine, same = models.identity(tiny_model), models.identity(copy)
    assert mine.name == str(tiny_model) and mine != same
    assert replace(same, name=mine.name) == mine and not mine.differs(same)
    assert models.identity(models.load(tiny_model)) == mine
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    tuned = models.identity(copy)
    assert tuned.revision != mine.revision and mine.differs(tuned) == "weights"
    (copy / "tokenizer.json").write_text((copy / "tokenizer.json").read_text() + " ")
    assert models.identity(copy).tokenizer_hash != mine.tokenizer_hash


def test_the_weights_are_told_in_a_folder_in_other_shards_and_in_memory(
    tiny_model: Path, tmp_path: Path
):
    whole = AutoModelForCausalLM.from_pretrained(tiny_model)
    whole.save_pretrained(tmp_path, max_shard_size="20KB")
    shutil.copy(tiny_model / "tokenizer.json", tmp_path)
    here, split = models.identity(tiny_model), models.identity(tmp_path)
    assert here.revision != split.revision and here.weights == split.weights
    assert not here.differs(split)
    bridge = TransformerBridge.boot_transformers(str(tiny_model), dtype=torch.float32)
    for model in (whole, bridge, AutoModel.from_pretrained(tiny_model)):
        assert models.identity(model).weights == here.weights
    whole.transformer.h[1].mlp.c_fc.bias.data[3] += 1e-3
    assert here.differs(models.identity(whole)) == "weights"
    assert here.differs(models.identity(whole.to(torch.bfloat16))) == "weights"


def test_a_record_without_values_is_compared_by_its_files(tiny_model: Path, copy: Path):
    old = replace(models.identity(tiny_model), weights=None)
    assert not old.differs(models.identity(copy))
    assert replace(old, revision="other").differs(models.identity(copy)) == "revision"


def test_a_model_that_is_no_hugging_face_model_has_a_name_and_no_identity():
    assert models.identity(torch.nn.Linear(1, 1)) == Identity("Linear")


def test_loading_prints_nothing(tiny_model: Path, capfd: pytest.CaptureFixture):
    models.load(tiny_model)
    assert capfd.readouterr() == ("", "")
