"""A file that says something else is another function: were a field not read, the numbers would
still agree."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from saelab import SAE
from tests.formats import saelens_files
from tests.formats.editing import edited, rewritten
from tests.formats.files import WRITTEN
from tests.formats.measuring import TOKENS, expected, measured, off
from tests.formats.weights import Weights, four

# A change of what a file says, which makes it another function: what must differ, or the refusal.
OTHERWISE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "not centred": ("saelens_gated", lambda at: edited(at, apply_b_dec_to_input=False)),
    "the choice without row norms": (
        "saelens_topk_checkpoint",
        lambda at: edited(at, rescale_acts_by_decoder_norm=False),
    ),
    "another scale": (
        "saelens_topk_checkpoint",
        lambda at: (at / "activation_scaler.json").write_text('{"scaling_factor": 1.8}'),
    ),
    "no normalisation of tokens": (
        "saelens_layer_norm",
        lambda at: edited(at, normalize_activations="none"),
    ),
    "the other normalisation": (
        "saelens_layer_norm",
        lambda at: edited(at, normalize_activations="constant_norm_rescale"),
    ),
    "a decoder with its axes exchanged": (
        "saelens_gated",
        lambda at: rewritten(
            at / "sae_weights.safetensors",
            W_dec=load_file(at / "sae_weights.safetensors")["W_dec"].flip(1).contiguous(),
        ),
    ),
    "jumprelu taken for relu": (
        "saelens_log_threshold",
        lambda at: rewritten(at / "sae_weights.safetensors", log_threshold=torch.full((24,), -9.0)),
    ),
    "a final file taken for a checkpoint": (
        "saelens_batchtopk_checkpoint",
        lambda at: edited(at, rescale_acts_by_decoder_norm=False),
    ),
    "a model that was not centred": (
        "saelens_centred_model",
        lambda at: edited(at, metadata={"sae_lens_version": "6.54.12"}),
    ),
    "a transcoder that is centred": (
        "sparsify_transcoder",
        lambda at: edited(at / "layers.3.mlp", transcode=False),
    ),
    "levels before the rows are scaled": (
        "llamascopium",
        lambda at: (at / "config.json").write_text(
            (at / "config.json").read_text().replace('norm": true', 'norm": false')
        ),
    ),
    "no scale of the inputs": (
        "r1_distill",
        lambda at: (at / "config.json").write_text(
            (at / "config.json").read_text().replace("dataset-wise", "no-norm")
        ),
    ),
    "another class of the same tensors": (
        "dl_batchtopk",
        lambda at: (at / "config.json").write_text(
            (at / "config.json").read_text().replace("BatchTopKSAE", "AutoEncoderTopK")
        ),
    ),
}


@pytest.mark.parametrize("what", OTHERWISE)
def test_a_file_that_says_something_else_is_another_function(what: str, tmp_path: Path):
    """The twin of the test above: were the field not read, the numbers would still agree."""
    name, change = OTHERWISE[what]
    file = WRITTEN[name](tmp_path / "published")
    change(tmp_path / "published")
    assert off(measured(SAE.load(file.path))[0], expected(file)[0]) > 1e-3


def test_an_activation_called_topk_makes_it_one_whatever_the_architecture_says(tmp_path: Path):
    at, w = tmp_path / "v5", Weights(1)
    saelens_files.saelens(at, four(w), architecture="standard")
    cfg = {
        "architecture": "standard",
        "activation_fn_str": "topk",
        "hook_name": "blocks.1.hook_out",
    }
    (at / "cfg.json").write_text(json.dumps({**cfg, "activation_fn_kwargs": {"k": 3}}))
    assert SAE.load(at).encode(torch.from_numpy(TOKENS)).starts.diff().unique().tolist() == [3]
    edited(at, activation_fn_str="relu")
    assert len(SAE.load(at).encode(torch.from_numpy(TOKENS)).starts.diff().unique()) > 1
