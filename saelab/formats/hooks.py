"""Places in a model as others name them, and the names of its hook points here."""

import re

from saelab.errors import UsageError

# A module of a block by its last names, which families spell differently: (its input, its output).
MODULES = {
    "mlp": ("blocks.{}.mlp.hook_in", "blocks.{}.mlp.hook_out"),
    "attn": ("blocks.{}.attn.hook_in", "blocks.{}.attn.hook_out"),
    "self_attn": ("blocks.{}.attn.hook_in", "blocks.{}.attn.hook_out"),
    "attention": ("blocks.{}.attn.hook_in", "blocks.{}.attn.hook_out"),
    "self_attn.o_proj": ("blocks.{}.attn.hook_z", "blocks.{}.attn.hook_out"),
    "attn.c_proj": ("blocks.{}.attn.hook_z", "blocks.{}.attn.hook_out"),
    "attention.dense": ("blocks.{}.attn.hook_z", "blocks.{}.attn.hook_out"),
    "input_layernorm": ("blocks.{}.hook_resid_pre", "blocks.{}.ln1.hook_out"),
    "ln_1": ("blocks.{}.hook_resid_pre", "blocks.{}.ln1.hook_out"),
    "ln_2": ("blocks.{}.hook_resid_mid", "blocks.{}.ln2.hook_out"),
    "pre_feedforward_layernorm": ("blocks.{}.hook_resid_mid", "blocks.{}.ln2.hook_out"),
    "post_feedforward_layernorm": ("blocks.{}.mlp.hook_out", "blocks.{}.hook_mlp_out"),
}
# The norm behind attention in models that have norms behind their parts, before the MLP elsewhere.
POST_NORMS = ("gemma-2", "gemma-3", "gemma2", "gemma3", "olmo-2", "glm-4")
BEHIND = {
    True: ("blocks.{}.attn.hook_out", "blocks.{}.hook_attn_out"),
    False: ("blocks.{}.hook_resid_mid", "blocks.{}.ln2.hook_out"),
}
EMBEDDINGS = ("embed_tokens", "wte", "embed_in")
BLOCK = re.compile(r"(?:^|.*\.)(?:layers|h|blocks)\.(\d+)(?:\.(.+))?$")


def of_module(path: str, side: str = "output", model: str = "") -> str:
    """The hook point of a Hugging Face module's input or output. Raises UsageError for a module
    that none is known for.

    >>> of_module("model.layers.3.self_attn.o_proj", "input")
    'blocks.3.attn.hook_z'
    """
    if path in (
        "embed_tokens",
        "model.embed_tokens",
        "wte",
        "transformer.wte",
        "gpt_neox.embed_in",
    ):
        return "hook_embed"
    block = BLOCK.match(path)
    if block is None:
        raise UsageError(f"no hook point is known for the module {path!r}: give --hook")
    number, inner = block.groups()
    if inner is None:
        return f"blocks.{number}.hook_resid_{'pre' if side == 'input' else 'post'}"
    pair = MODULES.get(inner)
    if inner == "post_attention_layernorm":
        pair = BEHIND[any(name in model.lower() for name in POST_NORMS)]
    if pair is None:
        raise UsageError(f"no hook point is known for the module {path!r}: give --hook")
    return pair[side != "input"].format(number)


def of_place(place: str, model: str = "") -> str:
    """The hook point of `MODULE.input` or `MODULE.output`, as Gemma Scope 2 writes places.

    >>> of_place("model.layers.3.output")
    'blocks.3.hook_resid_post'
    """
    module, _, side = place.rpartition(".")
    if side not in ("input", "output"):
        raise UsageError(f"{place!r} is no MODULE.input or MODULE.output: give --hook")
    return of_module(module, side, model)


# The names that TransformerLens 2 and 3 know, by the last part of ours.
TRANSFORMER_LENS = {
    "hook_in": "hook_resid_pre",
    "hook_out": "hook_resid_post",
    "attn.hook_out": "hook_attn_out",
    "mlp.hook_out": "hook_mlp_out",
    "ln2.hook_out": "ln2.hook_normalized",
}
INSIDE = re.compile(r"blocks\.(\d+)\.(.+)")


def for_transformer_lens(name: str) -> str:
    """A hook point by the name that tools of TransformerLens 2 and 3 know.

    >>> for_transformer_lens("blocks.3.hook_out")
    'blocks.3.hook_resid_post'
    """
    inside = INSIDE.fullmatch(name)
    if inside is None or inside[2] not in TRANSFORMER_LENS:
        return name
    return f"blocks.{inside[1]}.{TRANSFORMER_LENS[inside[2]]}"
