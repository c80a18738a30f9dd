"""Which device is computed on, what is refused, and what is said where memory runs out."""

from pathlib import Path

import pytest
import torch

import saelab
from apps.cli import main
from saelab import SAE, Choice, kernels, models, opening
from saelab.activations import Cache
from saelab.activations.plan import Plan
from saelab.device import chosen, out_of_memory, quick_dtype
from saelab.errors import UsageError
from saelab.models import loading
from tests.pretend import NAME, pretend_accelerator
from training import Config
from training import run as run_


def cards(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """This machine, as torch tells of it, with so many CUDA devices that hold nothing."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    real = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, device=None: real(*size))


def test_without_a_name_cuda_counts_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    cards(monkeypatch, 0)
    assert (chosen(), chosen("cpu"), Config().place) == ("cpu", "cpu", "cpu")
    cards(monkeypatch, 2)
    assert (chosen(), chosen("cuda:1"), Config().place) == ("cuda", "cuda:1", "cuda")
    assert Config(device="cpu").place == "cpu"


@pytest.mark.parametrize(
    ("name", "n_cards", "said"),
    [
        ("cuda", 0, "CUDA"),
        ("cuda:1", 1, "1 CUDA device, counted from cuda:0"),
        ("cuda:7", 4, "4 CUDA devices, counted from cuda:0"),
        ("gpu", 1, "no device has such a name: cpu, cuda, cuda:1 are names"),
        ("cuda:-1", 1, "no device has such a name"),
        ("meta", 1, "no data"),
        (NAME, 0, ""),
    ],
)
def test_a_device_that_is_not_here_is_refused(
    name: str, n_cards: int, said: str, monkeypatch: pytest.MonkeyPatch
):
    if name not in ("meta", NAME):
        cards(monkeypatch, n_cards)
    with pytest.raises(UsageError, match=f"there is no device '{name}' here") as refused:
        chosen(name)
    message = str(refused.value)
    assert said in message and message.endswith("--device cpu is everywhere")
    assert len(message) < 200


def test_the_pretend_one_is_here_while_it_is_pretended():
    with pretend_accelerator():
        assert chosen(NAME) == NAME
        assert torch.accelerator.is_available()
    assert not torch.accelerator.is_available()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("verb", ["capture", "eval", "circuits", "bench", "reproduce"])
def test_every_verb_refuses_a_device_that_is_not_here(verb: str, tiny_run: Path, capsys):
    words = {
        "capture": ["--hook", "blocks.0.hook_out", "--dry-run"],
        "eval": [str(tiny_run)],
        "reproduce": ["circuits"],
    }
    assert main([verb, *words.get(verb, []), "--device", "cuda"]) == 2
    assert "there is no device 'cuda' here" in capsys.readouterr().err.splitlines()[-1]


def test_models_compute_in_bfloat16_on_cards_that_are_quick_at_it(monkeypatch):
    quick = []
    monkeypatch.setattr(torch.cuda, "device", lambda name: torch.no_grad())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bool(quick))
    assert (quick_dtype("cpu"), quick_dtype("cuda")) == ("float32", "float32")
    quick.append(True)
    assert (quick_dtype("cpu"), quick_dtype("cuda:1")) == ("float32", "bfloat16")


def test_a_model_in_bfloat16_is_the_model_that_it_is_in_float32(tiny_model: Path):
    exact, rounded = (models.load(tiny_model, dtype=name) for name in ("float32", "bfloat16"))
    assert (models.dtype_of(exact), models.dtype_of(rounded)) == ("float32", "bfloat16")
    assert models.identity(exact) == models.identity(rounded)
    with pytest.raises(UsageError, match="no dtype 'int8' for a model; there are float32"):
        models.load(tiny_model, dtype="int8")


def test_a_cache_records_what_its_model_computed_in_and_later_verbs_do_the_same(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path
):
    cache, run = str(tmp_path / "cache"), str(tmp_path / "run")
    text = ["--model", str(tiny_model), "--text", str(tiny_corpus), "--tokens", "3000"]
    hook, rounded = ["--hook", "blocks.0.hook_out"], ["--model-dtype", "bfloat16"]
    assert main(["capture", *text, *hook, *rounded, "--out", cache, "--device", "cpu"]) == 0
    sizes = ["--features", "64", "--k", "4", "--batch", "128", "--tokens", "1024"]
    assert main(["train", "--cache", cache, *sizes, "--out", run, "--device", "cpu"]) == 0
    assert models.dtype_of(saelab.open(run).model) == "bfloat16"
    assert models.dtype_of(saelab.open(run, dtype="float32").model) == "float32"
    assert models.dtype_of(opening.open(run, needs=("model",)).model) == "float32"
    assert main(["eval", run, "--tokens", "200", "--device", "cpu"]) == 0
    manifest = Cache(cache).manifest
    older = {k: v for k, v in manifest["settings"].items() if k != "model_dtype"}
    assert Plan.read(manifest).model_dtype == "bfloat16"
    assert Plan.read({**manifest, "settings": older}).model_dtype == "float32"


# --- what cannot go together --------------------------------------------------------------------


def test_tensors_on_two_devices_are_named_with_both():
    sae = SAE(8, 16, Choice(2))
    with pretend_accelerator():
        x_BD = torch.randn(4, 8).to(NAME)
        with pytest.raises(ValueError, match=f"x lies on {NAME}:0 and SAE on cpu: move one"):
            sae.encode(x_BD)
        code = sae.encode(x_BD.cpu()).to(NAME)
        with pytest.raises(ValueError, match=f"code lies on {NAME}:0 and W on cpu"):
            kernels.spmm(code, sae.W_dec.detach())
        assert sae.to(NAME).encode(x_BD).values.device.type == NAME


# --- memory that runs out -----------------------------------------------------------------------

FULL = (
    "CUDA out of memory. Tried to allocate 20.50 GiB. GPU 0 has a total capacity of 79.10 GiB of "
    "which 2.25 GiB is free. Of the allocated memory 70 GiB is allocated by PyTorch. See "
    "documentation for Memory Management"
)


def exhausted(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError(FULL)


def test_training_that_does_not_fit_says_what_would(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(run_.Run, "step", exhausted)
    line = ["train", "--cache", str(tiny_cache), "--hook", "blocks.0.hook_resid_post"]
    sizes = ["--features", "64", "--k", "4", "--batch", "256", "--tokens", "1024"]
    assert main([*line, *sizes, "--out", str(tmp_path / "run"), "--device", "cpu"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    start = "saelab train: out of memory on cuda:0: 20.50 GiB more were wanted where 2.25 GiB of"
    assert said.startswith(f"{start} 79.10 GiB were free; what takes less: --batch 128 (not 256)")
    for way in (
        "--features 32 (not 64)",
        "--dtype bfloat16",
        "--moments bfloat16",
        "more ranks (torchrun",
        "0.0 GiB",
    ):
        assert way in said


def test_a_model_that_does_not_fit_is_not_blamed_on_its_files(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(loading, "_plain", exhausted)
    line = ["circuits", "--model", str(tiny_model), "--n", "8", "--device", "cpu"]
    assert main(line) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "out of memory on cuda:0" in said and "--n 4 (not 8)" in said
    assert said.endswith("--model-dtype bfloat16")


def test_what_is_no_lack_of_memory_is_told_apart():
    wrapped = RuntimeError("it stopped")
    wrapped.__cause__ = torch.OutOfMemoryError(FULL)
    host = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you "
    card = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")
    for error in (wrapped, MemoryError(), RuntimeError(host + "tried to allocate 4 bytes"), card):
        assert out_of_memory(error) is not None
    for other in (RuntimeError("shapes differ"), ValueError("out of memory is a phrase"), None):
        assert out_of_memory(other) is None
