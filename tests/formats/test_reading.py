"""Files of other projects are the function that their own code makes of them, to 1e-5."""

from pathlib import Path

import numpy as np
import pytest
import torch

from saelab import SAE, formats
from saelab.analysis import parts
from saelab.errors import UsageError
from tests.formats.files import WRITTEN
from tests.formats.measuring import TOKENS, expected, measured, off
from tests.formats.weights import D

CLOSE = 1e-5


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_is_the_function_that_its_own_code_makes_of_it(name: str, tmp_path: Path):
    file = WRITTEN[name](tmp_path / "published")
    (y_BD, sizes_BF), (ours_BD, own_BF) = expected(file), measured(SAE.load(file.path))
    assert off(ours_BD, y_BD) < CLOSE
    assert off(own_BF, sizes_BF) < CLOSE
    assert np.array_equal(own_BF != 0, sizes_BF != 0) and (own_BF != 0).any()


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_read_is_the_same_when_it_is_saved_in_our_own_form(name: str, tmp_path: Path):
    sae = SAE.load(WRITTEN[name](tmp_path / "published").path)
    sae.save(tmp_path / "ours")
    again = SAE.load(tmp_path / "ours")
    assert np.array_equal(measured(again)[0], measured(sae)[0])
    assert again.origin == sae.origin and again.origin.format in formats.FORMATS


PLACES = {
    "saelens_skip_transcoder": ("blocks.1.hook_mlp_out", "blocks.1.hook_mlp_out", "gpt2"),
    "sparsify": ("blocks.3.hook_resid_post", "blocks.3.hook_resid_post", "EleutherAI/pythia-160m"),
    "sparsify_transcoder": ("blocks.3.mlp.hook_in", "blocks.3.mlp.hook_out", None),
    "dl_topk": ("blocks.3.hook_resid_post", "blocks.3.hook_resid_post", "gpt2"),
    "gemma_scope": (
        "blocks.12.hook_resid_post",
        "blocks.12.hook_resid_post",
        "google/gemma-2-2b",
    ),
    "gemma_scope_transcoder": (
        "blocks.3.ln2.hook_normalized",
        "blocks.3.hook_mlp_out",
        "google/gemma-2-2b",
    ),
    "gemma_scope_2": ("blocks.3.ln2.hook_out", "blocks.3.hook_mlp_out", None),
    "goodfire": (
        "blocks.19.hook_resid_post",
        "blocks.19.hook_resid_post",
        "meta-llama/Llama-3.1-8B-Instruct",
    ),
    "circuit_tracer": ("blocks.3.mlp.hook_in", "blocks.3.hook_mlp_out", "gpt2"),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_place_that_a_file_names_is_a_hook_point(name: str, tmp_path: Path):
    origin = SAE.load(WRITTEN[name](tmp_path / "published").path).origin
    model = origin.model.name if origin.model else None
    assert (*origin.hooks, model) == PLACES[name]


def test_an_sae_that_normalises_tokens_is_not_taken_apart(tmp_path: Path):
    file = WRITTEN["saelens_layer_norm"](tmp_path / "published")
    sae = SAE.load(file.path)
    with pytest.raises(UsageError, match=r"normalises each token by itself \(layer_norm\)"):
        parts.split(sae, torch.zeros(1, 3, D), torch.zeros(1, 3, D))
    x_BD = torch.from_numpy(TOKENS)
    assert off(sae.decode(sae.encode(x_BD)).detach().numpy(), expected(file)[0]) > 1e-2
