"""Releases whose files leave out what decides their function are known by name, and SAEs of models
that were processed first are the function that they were there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from saelab import SAE
from saelab.errors import UsageError
from saelab.formats import releases
from saelab.formats.imported import unknown
from tests.formats.editing import edited
from tests.formats.measuring import TOKENS, measured, off
from tests.formats.saelens_files import saelens
from tests.formats.weights import Array, Weights, four, relu

PLAIN = {"sae_lens_version": "6.0.0"}


def written(at: Path, hook: str, model: str = "gpt2-small", **cfg: object) -> tuple[Path, Weights]:
    w = Weights(7)
    metadata = {**PLAIN, "model_name": model, "hook_name": hook}
    return saelens(at, four(w), metadata, architecture="standard", **cfg), w


def reconstruction(w: Weights, x: Array, scale: float = 1.0, mean: bool = True) -> Array:
    """Of one that saw x without its mean, times a scale."""
    shift = x.mean() if mean else 0.0
    return w.out(relu(w.pre((x - shift) * scale)))[0] / scale + shift


REPOSITORIES: dict[str, tuple[str, float]] = {
    "GPT2-Small-SAEs-Reformatted/blocks.8.hook_resid_pre": ("blocks.8.hook_resid_pre", 1.0),
    "models--jbloom--GPT2-Small-Feature-Splitting-Experiment-Layer-8/snapshots/a/x": (
        "blocks.8.hook_resid_pre", 1.0,
    ),
    "gpt2-small-mlp-out-saes/sae_group_gpt2_blocks.3.hook_mlp_out_24576:v0": (
        "blocks.3.hook_mlp_out", 1.8958522157897557,
    ),
}  # fmt: skip


@pytest.mark.parametrize("place", REPOSITORIES)
def test_a_release_that_needs_a_centred_stream_is_known_by_its_repository(
    place: str, tmp_path: Path
):
    hook, scale = REPOSITORIES[place]
    cfg = {} if scale == 1 else {"normalize_activations": "expected_average_only_in"}
    path, w = written(tmp_path / place, hook, **cfg)
    sae = SAE.load(path)
    truth = np.stack([reconstruction(w, x.astype(float), scale) for x in TOKENS])
    assert off(measured(sae)[0], truth) < 1e-5
    assert sae.origin.more["release"] in {release.name for release in releases.RELEASES}


def test_the_same_files_elsewhere_are_another_function(tmp_path: Path):
    """The twin: nothing in them says it."""
    path, w = written(tmp_path / "mine" / "blocks.8.hook_resid_pre", "blocks.8.hook_resid_pre")
    plain = np.stack([reconstruction(w, x.astype(float), mean=False) for x in TOKENS])
    centred = np.stack([reconstruction(w, x.astype(float)) for x in TOKENS])
    assert off(measured(SAE.load(path))[0], plain) < 1e-5
    assert off(measured(SAE.load(path))[0], centred) > 1e-2
    path, w = written(tmp_path / "gpt2-small-mlp-out-saes" / "x", "blocks.3.hook_resid_pre")
    assert "release" not in SAE.load(path).origin.more  # that repository has no such hook
    path, w = written(
        tmp_path / "GPT2-Small-SAEs-Reformatted" / "x", "blocks.8.hook_resid_pre", "pythia"
    )
    assert "release" not in SAE.load(path).origin.more


def test_a_release_is_known_by_its_number_on_neuronpedia_and_its_shape():
    said = {
        "model_name": "gpt2-small", "hook_name": "blocks.8.hook_resid_pre", "d_in": 768,
        "d_sae": 3072, "neuronpedia_id": "gpt2-small/8-res_fs3072-jb",
    }  # fmt: skip
    full = releases.completed(said, Path("anywhere"))
    assert full["model_from_pretrained_kwargs"] == {"center_writing_weights": True}
    for other in ({"d_sae": 3000}, {"d_in": 512}, {"neuronpedia_id": "gpt2-small/8-mine"}):
        assert releases.completed(said | other, Path("anywhere")) == said | other
    said |= {"d_sae": 24_576, "neuronpedia_id": "gpt2-small/8-res-jb"}
    assert releases.completed(said, Path("x"))["release"] == "gpt2-small-res-jb"


def processed(folder: Path) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A GPT-2 as it is, and with its norms folded and its writing weights centred, in float64."""
    load: Callable = transformers.AutoModelForCausalLM.from_pretrained
    raw, other = (load(folder, dtype=torch.float64).eval() for _ in range(2))
    stack = other.transformer
    with torch.no_grad():
        for block in stack.h:
            for norm, reader in ((block.ln_1, block.attn.c_attn), (block.ln_2, block.mlp.c_fc)):
                reader.bias += norm.bias @ reader.weight
                reader.weight *= norm.weight[:, None]
                norm.weight.fill_(1)
                norm.bias.zero_()
            for writer in (block.attn.c_proj, block.mlp.c_proj):
                writer.weight -= writer.weight.mean(1, keepdim=True)
                writer.bias -= writer.bias.mean()
        for embedding in (stack.wte, stack.wpe):
            embedding.weight.data = embedding.weight - embedding.weight.mean(1, keepdim=True)
    return raw, other


@pytest.mark.parametrize("hook", ["blocks.1.hook_resid_pre", "blocks.1.attn.hook_z"])
def test_of_a_processed_model_it_is_the_function_that_it_was_there(
    hook: str, tiny_model: Path, tmp_path: Path
):
    raw, other = processed(tiny_model)
    tokens = torch.randint(1, 250, (4, 30), generator=torch.Generator().manual_seed(0))
    seen = [_seen(model, hook, tokens) for model in (raw, other)]
    generator = torch.Generator().manual_seed(1)
    shapes = {"W_enc": (32, 24), "b_enc": (24,), "W_dec": (24, 32), "b_dec": (32,)}
    held = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    options = {"center_writing_weights": True, "fold_ln": True}
    metadata = {**PLAIN, "hook_name": hook, "model_from_pretrained_kwargs": options}
    path = saelens(tmp_path / "sae", held, metadata, architecture="standard", d_in=32, d_sae=24)
    x_hat = _own(held, seen[1]) + (seen[0] - seen[1])  # what centring took off comes back
    sae = SAE.load(path)
    assert off(measured(sae, seen[0].float().numpy())[0], x_hat.numpy()) < 1e-5
    edited(path, metadata={**metadata, "model_from_pretrained_kwargs": {}})
    plain = measured(SAE.load(path), seen[0].float().numpy())[0]
    assert (off(plain, x_hat.numpy()) > 1e-2) == hook.endswith("resid_pre")


def _seen(model: torch.nn.Module, hook: str, tokens: torch.Tensor) -> torch.Tensor:
    kept = []
    block = model.transformer.h[1]  # type: ignore[union-attr, index]
    module = block.attn.c_proj if hook.endswith("hook_z") else block
    handle = module.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    with torch.no_grad():
        model(tokens)
    handle.remove()
    return kept[0].flatten(0, 1)


def _own(held: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    w = {name: value.double() for name, value in held.items()}
    z = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    return z @ w["W_dec"] + w["b_dec"]


def test_what_processing_cannot_undo_is_refused_and_where_it_does_nothing_it_is_none(tmp_path):
    def cfg(hook: str, model: str = "gpt2", **options: bool) -> Path:
        at = tmp_path / f"{model}-{hook}"
        metadata = {**PLAIN, "hook_name": hook, "model_name": model}
        kwargs = {"model_from_pretrained_kwargs": options}
        return saelens(at, four(Weights(1)), metadata | kwargs, architecture="standard")

    with pytest.raises(UsageError, match="loaded with fold_value_biases, which changes what heads"):
        SAE.load(cfg("blocks.1.attn.hook_z", fold_value_biases=True))
    with pytest.raises(UsageError, match="loaded with refactor_factored_attn_matrices"):
        SAE.load(cfg("blocks.1.attn.hook_q", refactor_factored_attn_matrices=True))
    centred = {"center_writing_weights": True}
    assert SAE.load(cfg("blocks.1.hook_resid_mid", **centred)).W_skip is not None
    for hook, model in (
        ("blocks.1.mlp.hook_post", "gpt2"),  # nothing is written there
        ("blocks.1.ln2.hook_normalized", "gpt2"),  # a norm takes the mean off anyway
        ("blocks.1.hook_resid_post", "meta-llama/Llama-3.1-8B"),  # its norms take none off
    ):
        assert SAE.load(cfg(hook, model, **centred)).W_skip is None


def test_files_of_before_it_was_said_are_told_to_leave_it_open(tmp_path: Path):
    path = saelens(tmp_path / "old", four(Weights(1)), architecture="standard")
    edited(path, metadata=None, sae_lens_version="3.4.0", hook_name="blocks.1.hook_resid_pre")
    assert any("before SAELens 3.19.2: --check" in what for what in unknown(SAE.load(path)))
    edited(path, sae_lens_version="3.20.0")
    assert not any("SAELens" in what for what in unknown(SAE.load(path)))
    edited(path, sae_lens_version="3.4.0", model_name="gemma-2b")
    assert not any("SAELens" in what for what in unknown(SAE.load(path)))
    edited(path, model_from_pretrained_kwargs={"checkpoint_value": 1000})
    assert any("checkpoint_value 1000 of it is meant" in what for what in unknown(SAE.load(path)))
