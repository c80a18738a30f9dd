"""Where hook points lie in a plain Hugging Face model: a row per family of architectures.

A hook point is named as a TransformerLens bridge names it: a block's part, then `hook_in` or
`hook_out`. Here stands the module behind each part, so that its input or output is that point, and
the older names that mean the same place. Points inside a module (attention patterns, norm
denominators) have no row: they need the bridge.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
OLDER = {
    "hook_resid_pre": "hook_in",
    "hook_resid_mid": "ln2.hook_in",
    "hook_resid_post": "hook_out",
    "hook_attn_out": "attn.hook_out",
    "hook_mlp_out": "mlp.hook_out",
    "attn.hook_q": "attn.q.hook_out",
    "attn.hook_k": "attn.k.hook_out",
    "attn.hook_v": "attn.v.hook_out",
    "attn.hook_z": "attn.o.hook_in",
    "mlp.hook_pre": "mlp.in.hook_out",
    "mlp.hook_post": "mlp.out.hook_in",
}
GATED = {"mlp.hook_pre": "mlp.gate.hook_out", "mlp.hook_pre_linear": "mlp.in.hook_out"}
NORMED = {"hook_attn_out": "ln1_post.hook_out", "hook_mlp_out": "ln2_post.hook_out"}
OLDER_ENDS = {"hook_embed": "embed.hook_out", "hook_unembed": "unembed.hook_out"}
HEADS = {
    "attn.o.hook_in": "num_attention_heads",
    "attn.q.hook_out": "num_attention_heads",
    "attn.k.hook_out": "num_key_value_heads",
    "attn.v.hook_out": "num_key_value_heads",
}


class Family(NamedTuple):
    """The modules of one family."""

    blocks: str
    """path of the list of blocks"""
    parts: Mapping[str, str]
    """part of a block -> path below the block"""
    ends: Mapping[str, str]
    """part outside the blocks -> path"""
    older: Mapping[str, str]
    """older name in a block -> part.hook_in or part.hook_out"""
    norm: Literal["layer", "rms", "rms + 1"]
    """what its norms are: "rms + 1" multiplies by 1 + weight"""


class Point(NamedTuple):
    """A hook point of a plain model."""

    module: str
    """path of the module"""
    side: str
    """"hook_in": its first input; "hook_out": its (first) output"""
    heads: int | None
    """attention heads into which the last dimension is split"""


_PROJECTIONS = {f"attn.{letter}": f"self_attn.{letter}_proj" for letter in "qkvo"}
_GATED_MLP = {
    "mlp": "mlp",
    "mlp.gate": "mlp.gate_proj",
    "mlp.in": "mlp.up_proj",
    "mlp.out": "mlp.down_proj",
}
_LLAMA = {"attn": "self_attn", **_PROJECTIONS, **_GATED_MLP, "ln1": "input_layernorm"}
_LLAMA_ENDS = {"embed": "model.embed_tokens", "ln_final": "model.norm", "unembed": "lm_head"}

GPT2 = Family(
    "transformer.h",
    {"ln1": "ln_1", "attn": "attn", "attn.o": "attn.c_proj", "ln2": "ln_2", "mlp": "mlp",
     "mlp.in": "mlp.c_fc", "mlp.out": "mlp.c_proj"},
    {"embed": "transformer.wte", "ln_final": "transformer.ln_f", "unembed": "lm_head"},
    OLDER,
    "layer",
)  # fmt: skip
LLAMA = Family(
    "model.layers",
    {**_LLAMA, "ln2": "post_attention_layernorm"},
    _LLAMA_ENDS,
    OLDER | GATED,
    "rms",
)
NEOX = Family(
    "gpt_neox.layers",
    {"ln1": "input_layernorm", "attn": "attention", "attn.o": "attention.dense",
     "ln2": "post_attention_layernorm", "mlp": "mlp", "mlp.in": "mlp.dense_h_to_4h",
     "mlp.out": "mlp.dense_4h_to_h"},
    {"embed": "gpt_neox.embed_in", "ln_final": "gpt_neox.final_layer_norm", "unembed": "lm_head"},
    {name: point for name, point in OLDER.items() if name != "hook_resid_mid"},
    "layer",
)  # fmt: skip
GEMMA_2 = Family(
    "model.layers",
    {**_LLAMA, "ln1_post": "post_attention_layernorm", "ln2": "pre_feedforward_layernorm",
     "ln2_post": "post_feedforward_layernorm"},
    _LLAMA_ENDS,
    OLDER | GATED | NORMED,
    "rms + 1",
)  # fmt: skip

FAMILIES: dict[str, Family] = {
    "GPT2LMHeadModel": GPT2,
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "Qwen2ForCausalLM": LLAMA,
    "Qwen3ForCausalLM": LLAMA,
    "GPTNeoXForCausalLM": NEOX,
    "Gemma2ForCausalLM": GEMMA_2,
    "Gemma3ForCausalLM": GEMMA_2,
}


def reads_images(config: Mapping[str, Any]) -> bool:
    """Whether the fields of a config.json are those of a model of images."""
    vision = config.get("vision_config") or config
    return "patch_size" in vision and "image_size" in vision


def family_of(architecture: str) -> Family | None:
    """The family of a Hugging Face class of models, None where there is no row for it."""
    return FAMILIES.get(architecture)


def names(family: Family, n_layers: int) -> dict[str, str]:
    """Every name that points of the table answer to, with the canonical one."""
    sides = ("hook_in", "hook_out")
    in_block = {side: side for side in sides}
    in_block |= {f"{part}.{side}": f"{part}.{side}" for part in family.parts for side in sides}
    known = set(in_block)
    in_block |= {older: point for older, point in family.older.items() if point in known}
    every = {
        f"blocks.{layer}.{name}": f"blocks.{layer}.{point}"
        for layer in range(n_layers)
        for name, point in in_block.items()
    }
    ends = {f"{part}.{side}" for part in family.ends for side in sides} - {"embed.hook_in"}
    return every | {name: name for name in ends} | OLDER_ENDS


def point(family: Family, config: Any, canonical: str) -> Point | None:
    """Where a canonical hook point lies, None where it is no module's input or output."""
    if within := BLOCK.fullmatch(canonical):
        layer, place = within.groups()
        part, _, side = place.rpartition(".")
        below = f".{family.parts[part]}" if part else ""
        heads = HEADS.get(place)
        n_heads = getattr(config, heads, None) or config.num_attention_heads if heads else None
        return Point(f"{family.blocks}.{layer}{below}", side, n_heads)
    part, _, side = canonical.rpartition(".")
    return Point(family.ends[part], side, None)


def other_names(name: str) -> list[str]:
    """What else the point `name` may be called in a model that knows only one kind of name."""
    pairs = [*(OLDER | NORMED).items(), *GATED.items(), *OLDER_ENDS.items(), *OLDER.items()]
    return [
        name.removesuffix(one) + other
        for older, newer in pairs
        for one, other in ((older, newer), (newer, older))
        if name == one or name.endswith(f".{one}")
    ]
