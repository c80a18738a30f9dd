"""Architectures that load and agree with Hugging Face: the type that transformers gives each, and
what its tiny configuration needs beside the common fields."""

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

WIDTH = dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"), 32)
LAYERS = dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2)
HEADS = dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4)
LENGTH = dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 32)
INNER = dict.fromkeys(("intermediate_size", "ffn_dim", "ffn_hidden_size"), 64)
TOKENS = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0)
EXPERTS = dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4) | {
    "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip
ATTENTION = {
    "num_key_value_heads": 2, "head_dim": 8, "rotary_dim": 4, "sliding_window": 8,
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}  # fmt: skip
COMMON = {"vocab_size": 260, "state_size": 8, **WIDTH, **LAYERS, **HEADS, **LENGTH, **INNER,
          **TOKENS, **EXPERTS, **ATTENTION}  # fmt: skip

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "apertus": {},
    "arcee": {},
    "bitnet": {},
    "bloom": {},
    "codegen": {},
    "cohere": {},
    "cohere2": {},
    "deepseek_v3": {"head_dim": 4},
    "ernie4_5": {},
    "exaone4": {},
    "falcon": {},
    "falcon_mamba": {},
    "gemma": {},
    "gemma2": {},
    "gemma3_text": {},
    "glm": {},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "gpt_oss": {},
    "gptj": {},
    "granite": {},
    "llama": {},
    "llama4_text": {"intermediate_size_mlp": 64},
    "mamba": {},
    "mistral": {},
    "mixtral": {},
    "mpt": {},
    "nemotron": {},
    "olmo": {},
    "olmo2": {},
    "openai-gpt": {},
    "opt": {},
    "phi": {},
    "phi3": {},
    "qwen2": {},
    "qwen3": {},
    "qwen3_moe": {},
    "smollm3": {},
    "stablelm": {},
}


def configuration(name: str) -> Any:
    """The tiny configuration of an architecture: of the common fields, those that it knows."""
    kind = CONFIG_MAPPING[name]
    known = {*kind().to_dict(), *kind.attribute_map, *inspect.signature(kind).parameters}
    fields = {field: value for field, value in COMMON.items() if field in known}
    # An attribute may go by two names, of which only one may be given.
    twice = {field for field, own in kind.attribute_map.items() if own in fields}
    own = {field: value for field, value in fields.items() if field not in twice}
    return kind(**{**own, **ARCHITECTURES[name]})


def save(name: str, folder: Path) -> Path:
    """A random model of an architecture, without a tokenizer."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(configuration(name)).save_pretrained(folder)
    return folder
