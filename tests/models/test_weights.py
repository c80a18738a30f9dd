"""A loaded model is the model: 41 architectures agree with Hugging Face, damaged ones are refused
by the name of the weight, and a head that is not there predicts nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from saelab import models
from saelab.errors import UsageError
from saelab.models import heads, running, weights
from tests.models.architectures import ARCHITECTURES, save

TOKENS = torch.randint(1, 250, (2, 11), generator=torch.Generator().manual_seed(0))
LLAMA = transformers.LlamaConfig(
    vocab_size=260, hidden_size=16, intermediate_size=24, num_hidden_layers=2, pad_token_id=0,
    num_attention_heads=2, max_position_embeddings=32, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
BERT = transformers.BertConfig(
    vocab_size=260, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
    num_attention_heads=2, max_position_embeddings=32,
)  # fmt: skip

Edit = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def off(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, in units of the root mean square."""
    return float((ours - theirs).abs().max() / theirs.square().mean().sqrt())


def edit(folder: Path, change: Edit) -> None:
    """Rewrite a folder's weights."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def without(part: str) -> Edit:
    return lambda held: {key: values for key, values in held.items() if part not in key}


def with_tokenizer(folder: Path, tiny_model: Path) -> Path:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / file, folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Callable[..., Path]:
    """Writes a model of a class of transformers, with a tokenizer."""

    def write(kind: str, config: transformers.PreTrainedConfig) -> Path:
        torch.manual_seed(0)
        getattr(transformers, kind)(config).save_pretrained(tmp_path / kind)
        return with_tokenizer(tmp_path / kind, tiny_model)

    return write


def transformers_own(folder: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def test_there_are_41_architectures():
    assert len(ARCHITECTURES) == 41


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_agrees_with_hugging_face_and_a_damaged_one_is_refused(
    name: str, tmp_path: Path, tiny_model: Path
):
    folder = with_tokenizer(save(name, tmp_path), tiny_model)
    model = models.load(folder)
    with torch.no_grad():
        theirs = transformers_own(folder)(TOKENS).logits
        assert off(running.logits(model, TOKENS), theirs) < 1e-5
        head = heads.head(model)
        assert head is not None
        ending = running.read(model, TOKENS, [heads.ENDING])[heads.ENDING]
        assert off(head(ending), theirs) < 2e-5
    held = load_file(folder / "model.safetensors")
    matrices = [key for key, each in held.items() if each.ndim > 1 and key.endswith(".weight")]
    lost = next(key for key in matrices if ".1." in key and "expert" not in key)
    edit(folder, without(lost))
    with pytest.raises(UsageError, match=r"lacks weights of a .*LM.*: ") as error:
        models.load(folder)
    assert lost.rsplit(".", 2)[-2] in str(error.value)
    # Plain transformers takes it: the weight has what initialisation, or memory, left there.
    _, found = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert found["missing_keys"]


def test_names_under_another_prefix_are_refused_with_the_prefix(folder):
    path = folder("LlamaForCausalLM", LLAMA)
    edit(path, lambda held: {f"_orig_mod.{key}": values for key, values in held.items()})
    with pytest.raises(UsageError, match=r"names begin with '_orig_mod\.'"):
        models.load(path)


def test_a_lost_layer_and_a_promised_head_are_named(folder):
    path = folder("LlamaForCausalLM", LLAMA)
    for part, named in (
        ("lm_head", "lm_head.weight"),
        ("layers.1.mlp", "model.layers.1.mlp.down_proj.weight, model.layers.1.mlp.gate"),
    ):
        edit(path, without(part))
        with pytest.raises(UsageError, match=named):
            models.load(path)
        with pytest.raises(UsageError, match=named):
            models.identity(path)


def test_an_expert_that_is_lost_is_named(tmp_path: Path, tiny_model: Path):
    folder = with_tokenizer(save("mixtral", tmp_path), tiny_model)
    lost = "model.layers.1.block_sparse_moe.experts.2.w1.weight"
    edit(folder, without(lost))
    with pytest.raises(UsageError, match=lost):
        models.load(folder)


def test_a_reshaped_weight_is_named_with_both_shapes(folder):
    path = folder("LlamaForCausalLM", LLAMA)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    with pytest.raises(UsageError, match=r"the shape \[260, 16\], .* \[300, 16\]"):
        models.load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_named(folder, value: float):
    path = folder("LlamaForCausalLM", LLAMA)
    name = "model.layers.1.self_attn.q_proj.weight"

    def spoil(held: dict[str, Tensor]) -> dict[str, Tensor]:
        held[name][3, 2] = value
        return held

    edit(path, spoil)
    with pytest.raises(UsageError, match=f"NaN or infinite: {name};"):
        models.load(path)
    with pytest.raises(UsageError, match="this LlamaForCausalLM has weights that are NaN"):
        models.load(transformers_own(path))


def test_a_sum_that_overflows_is_not_taken_for_infinity():
    linear = torch.nn.Linear(4, 1, bias=False)
    linear.weight.data.fill_(3e38)
    weights.refuse_non_finite(linear, "it")


def test_a_tied_head_is_not_missing(folder, tiny_model: Path):
    held = load_file(tiny_model / "model.safetensors")
    assert "lm_head.weight" not in held and models.load(tiny_model).lacking == ()
    base = models.load(folder("GPT2Model", transformers.AutoConfig.from_pretrained(tiny_model)))
    assert base.lacking == () and not heads.why_no_losses(base)


def test_what_the_model_has_no_place_for_is_told_and_recorded(folder):
    path = folder("LlamaForCausalLM", LLAMA)
    before = models.identity(path).weights
    towers = {f"vision.layers.{n}.weight": torch.zeros(2) for n in range(3)}
    edit(path, lambda held: held | towers)
    model = models.load(path)
    assert model.unread == ("vision.layers.*.weight",)
    record = models.record(model)
    assert record["unread"] == ["vision.layers.*.weight"] and record["weights"] == before


@pytest.mark.parametrize("kind", ["LlamaModel", "LlamaForSequenceClassification", "CohereModel"])
def test_a_model_without_a_head_is_read_and_predicts_nothing(folder, kind: str):
    config = transformers.CohereConfig(**LLAMA.to_dict()) if kind == "CohereModel" else LLAMA
    config.tie_word_embeddings = False
    path = folder(kind, config)
    first, second = models.load(path), models.load(path)
    assert first.lacking == ("lm_head.weight",)
    name = "blocks.1.hook_resid_post"
    acts = [running.read(model, TOKENS, [name])[name] for model in (first, second)]
    assert torch.equal(*acts) and acts[0].isfinite().all()
    assert models.identity(first).weights == models.identity(path).weights is not None
    assert "its files lack lm_head.weight" in heads.why_no_losses(first)
    with pytest.raises(UsageError, match=r"predicts no tokens, its files lack lm_head\.weight"):
        running.logits(first, TOKENS)


@pytest.mark.parametrize("kind", ["BertForMaskedLM", "BertLMHeadModel", "BertModel"])
def test_a_model_that_sees_the_next_token_has_no_losses(folder, kind: str):
    model = models.load(folder(kind, BERT))
    assert heads.why_no_losses(model)
    name = "blocks.1.hook_out"
    assert running.read(model, TOKENS, [name])[name].isfinite().all()


def test_a_head_that_scales_its_logits_is_measured(folder):
    bridge = models.load(folder("CohereForCausalLM", transformers.CohereConfig(**LLAMA.to_dict())))
    known = heads.head(bridge)
    assert known is not None
    states = torch.randn(5, 16)
    assert (
        off(known(states), bridge.unembed(states) * bridge.bridge.original_model.logit_scale) < 1e-5
    )
