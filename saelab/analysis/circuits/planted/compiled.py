"""A hand-written program as a GPT-2 in Hugging Face layout, and the circuit that is true of it by
construction.

The residual stream is u written twice, once negated, so that its mean is 0; one coordinate of u is
LEVEL at every position, so that LayerNorm multiplies by a constant, up to |u|^2 / 2 LEVEL^2 (below
1e-3 here). Heads and MLPs without a part in the program are decoys: they read words and positions
and write to coordinates that nothing reads. Shapes: U coordinates of u, D = 2 U, E width of a head,
L layers, H heads.
"""

import math
import random
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis.circuits.planted.program import (
    BOS,
    LEVEL,
    N_HEADS,
    N_JUNK,
    N_LAYERS,
    Edge,
    Head,
    Neurons,
    Program,
    Variables,
)
from saelab.tasks import Task, collect

N_DECOYS = 8  # neurons of an MLP without a part in the program


class Compiled(NamedTuple):
    """What is true of a compiled program: heads [L, H] and mlps [L], bool: in the circuit; edges
    and fixed: see `Program`."""

    folder: Path
    heads: Tensor
    mlps: Tensor
    edges: tuple[Edge, ...]
    fixed: tuple[Edge, ...]


def _twice(x_XU: Tensor) -> Tensor:
    return torch.cat([x_XU, -x_XU], -1)


def _widened(x_UX: Tensor, n: int) -> Tensor:
    return torch.nn.functional.pad(x_UX, (0, n - x_UX.shape[1]))


def _decoy_head(var: Variables, width: int, generator: torch.Generator) -> Head:
    def draw(name: str) -> Tensor:
        return (
            var(name)
            @ torch.randn(len(var.where[name]), width, generator=generator)
            / math.sqrt(width)
        )

    junk_EJ = torch.randn(width, N_JUNK, generator=generator)
    return Head(
        draw("word") + draw("position"),
        draw("word") + draw("position"),
        draw("word"),
        junk_EJ @ var("junk").T,
    )


def _decoy_neurons(var: Variables, generator: torch.Generator) -> Neurons:
    enter_UN = var("word") @ torch.randn(len(var.where["word"]), N_DECOYS, generator=generator)
    leave_NU = torch.randn(N_DECOYS, N_JUNK, generator=generator) @ var("junk").T
    return Neurons(enter_UN, torch.zeros(N_DECOYS), leave_NU)


def _attention(heads: list[Head], width: int) -> dict[str, Tensor]:
    """c_attn [D, 3 H E] and c_proj [H E, D] of GPT-2, whose scores are divided by sqrt(E)."""
    query = [_widened(head.query, width) * math.sqrt(width) for head in heads]
    rest = [[_widened(part, width) for part in parts] for parts in (zip(*heads, strict=True))][1:3]
    joined_UX = torch.cat([*query, *rest[0], *rest[1]], 1)
    output_XU = torch.cat([_widened(head.output.T, width).T for head in heads])
    return {"c_attn": _twice(joined_UX.T).T / 2, "c_proj": _twice(output_XU)}


def _weights(program: Program, decoys: bool, seed: int) -> dict[str, Tensor]:
    """Every parameter that is not 0, under the names of transformers' GPT2LMHeadModel."""
    var, generator = program.variables, torch.Generator().manual_seed(seed)
    width = 2 * var.n // N_HEADS
    level_TU = LEVEL * var("level").T.expand(program.length, -1)
    state = {
        "transformer.wte.weight": _twice(var("word").T),
        "lm_head.weight": _twice(program.output) / 2,
    }
    state["transformer.wpe.weight"] = _twice(level_TU + var("position").T)
    zero_U1 = torch.zeros(var.n, 1)
    nothing = Head(zero_U1, zero_U1, zero_U1, zero_U1.T)
    for layer in range(N_LAYERS):
        spare = [_decoy_head(var, width, generator) if decoys else nothing for _ in range(N_HEADS)]
        heads = [program.heads.get((layer, head), spare[head]) for head in range(N_HEADS)]
        name = f"transformer.h.{layer}"
        state |= {
            f"{name}.attn.{part}.weight": weight
            for part, weight in _attention(heads, width).items()
        }
        neurons = program.mlps.get(layer) or (_decoy_neurons(var, generator) if decoys else None)
        if neurons is not None:
            state[f"{name}.mlp.c_fc.weight"] = _widened(_twice(neurons.enter.T).T / 2, N_DECOYS)
            state[f"{name}.mlp.c_fc.bias"] = _widened(neurons.bias[None], N_DECOYS)[0]
            state[f"{name}.mlp.c_proj.weight"] = _widened(_twice(neurons.leave).T, N_DECOYS).T
    return state


def _save_tokenizer(words: list[str], folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=BOS)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS
    ).save_pretrained(folder)


def compile_program(
    program: Program, folder: Path, *, decoys: bool = True, seed: int = 0
) -> Compiled:
    """Write a program to `folder`, for `saelab.models.load`, and return what is true of it.

    decoys: whether what has no part in the program does something that nothing reads, or nothing.

    >>> true = compile_program(induction(), Path("planted"))
    >>> model = models.load(true.folder)
    >>> scores = score(model, compiled_task(induction(), model))
    >>> agreement(scores.heads, true.heads).auc
    1.0
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    width = 2 * program.variables.n
    config = GPT2Config(
        vocab_size=len(program.words),
        n_positions=program.length,
        n_embd=width,
        n_layer=N_LAYERS,
        n_head=N_HEADS,
        n_inner=N_DECOYS,
        activation_function="relu",
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    given = _weights(program, decoys, seed)
    for key, parameter in model.named_parameters():
        norm = (
            LEVEL * math.sqrt(2 / width)
            if key.endswith(("ln_1.weight", "ln_2.weight", "ln_f.weight"))
            else 0.0
        )
        parameter.data = (
            given[key].contiguous() if key in given else torch.full_like(parameter, norm)
        )
    model.save_pretrained(folder)
    _save_tokenizer(program.words, folder)
    return true_of(program, folder)


def true_of(program: Program, folder: Path) -> Compiled:
    """What is true of a program that was compiled into `folder`."""
    heads_LH = torch.zeros(N_LAYERS, N_HEADS, dtype=torch.bool)
    for layer, head in program.heads:
        heads_LH[layer, head] = True
    mlps_L = torch.tensor([layer in program.mlps for layer in range(N_LAYERS)])
    return Compiled(folder, heads_LH, mlps_L, program.edges, program.fixed)


def compiled_task(program: Program, model: Any, n: int = 100, seed: int = 0) -> Task:
    """n prompts of a program for its compiled model, with twins that differ in every word the
    program reads."""
    return collect(program.name, model, program.pairs(random.Random(seed)), n)
