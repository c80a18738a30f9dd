"""The hook point that a module's name is read as gives what the module itself gives, in models of
five families with tiny random weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from saelab import models
from saelab.errors import UsageError
from saelab.formats import hooks
from saelab.models import running
from tests.models.architectures import save
from tests.models.test_weights import with_tokenizer

TOKENS = torch.randint(1, 250, (2, 9), generator=torch.Generator().manual_seed(0))
CLOSE = 1e-4  # of the rms
COMMON = ("{}.output", "{}.input", "{}.mlp.output", "{}.mlp.input")
LLAMA = (
    "{}.self_attn.output", "{}.self_attn.o_proj.input", "{}.input_layernorm.output",
    "{}.post_attention_layernorm.output",
)  # fmt: skip
GEMMA = ("{}.pre_feedforward_layernorm.output", "{}.post_feedforward_layernorm.output")
GPT2 = ("{}.attn.output", "{}.attn.c_proj.input", "{}.ln_1.output", "{}.ln_2.output")
NEOX = (
    "{}.attention.output", "{}.attention.dense.input", "{}.input_layernorm.output",
    "{}.post_attention_layernorm.output",
)  # fmt: skip
FAMILIES = {
    "llama": ("model.layers.1", (*COMMON, *LLAMA)),
    "gemma2": ("model.layers.1", (*COMMON, *LLAMA, *GEMMA)),
    "gemma3_text": ("model.layers.1", (*COMMON, *LLAMA, *GEMMA)),
    "gpt2": ("transformer.h.1", (*COMMON, *GPT2)),
    "gpt_neox": ("gpt_neox.layers.1", (*COMMON, *NEOX)),
}


def seen(model: Any, place: str) -> torch.Tensor:
    """What a module reads or gives, by a hook on the Hugging Face model."""
    path, _, side = place.rpartition(".")
    kept = []

    def keep(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        given = args[0] if args else kwargs["hidden_states"]
        wanted = given if side == "input" else output
        kept.append(wanted[0] if isinstance(wanted, tuple) else wanted)

    handle = model.get_submodule(path).register_forward_hook(keep, with_kwargs=True)
    with torch.no_grad():
        model(TOKENS)
    handle.remove()
    return kept[0]


def off(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.flatten(2) - theirs).abs().max() / theirs.square().mean().sqrt())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_module_is_the_hook_point_that_gives_its_activations(
    name: str, tmp_path: Path, tiny_model: Path
):
    folder = with_tokenizer(save(name, tmp_path), tiny_model)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    model = models.load(folder)
    block, places = FAMILIES[name]
    wrong = {}
    for place in (each.format(block) for each in places):
        hook = hooks.of_place(place, name)
        error = off(running.read(model, TOKENS, [hook])[hook], seen(theirs, place))
        if not error < CLOSE:
            wrong[place] = (hook, error)
    assert not wrong


def test_the_layer_beside_is_another_place(tmp_path: Path, tiny_model: Path):
    folder = with_tokenizer(save("llama", tmp_path), tiny_model)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    hook = hooks.of_place("model.layers.0.output")
    acts = running.read(models.load(folder), TOKENS, [hook])[hook]
    assert off(acts, seen(theirs, "model.layers.1.output")) > 0.1


def test_a_module_that_nobody_knows_is_refused():
    with pytest.raises(UsageError, match=r"no hook point is known for the module 'model\.norm'"):
        hooks.of_place("model.norm.output")
    with pytest.raises(UsageError, match=r"is no MODULE\.input or MODULE\.output"):
        hooks.of_place("model.layers.3")
