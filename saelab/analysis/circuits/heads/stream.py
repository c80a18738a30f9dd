"""Who writes to the residual stream and who reads it: the nodes and edges of a transformer's
computation.

Writers are the input embedding, every head and every MLP; readers are the query, key and value
inputs of every head, the input of every MLP, and the logits. A reader sees the sum of the writers
before it, so an edge is one writer's share of one reader's input (Elhage et al. 2021; Syed et al.
2023, section 3).

Shapes: P prompts, T positions, D width, L layers, H heads, U writers, R readers. Writers run
embedding, heads of layer 0, MLP 0, heads of layer 1 and so on; readers run q, k, v of layer 0, MLP
0, q of layer 1 and so on, then the logits.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.models import hooks, running
from saelab.tasks import Task, measure

PASS_TOKENS = 512  # of one pass with split inputs: more fall out of the processor's cache
Hook = tuple[str, running.Edit]


class Edge(NamedTuple):
    """One writer's share of one reader's input, such as `a0.h3` -> `a2.h1.q`, and what it does to
    the metric."""

    source: str
    target: str
    score: float


class Site(NamedTuple):
    """A hook at which the stream is read by `width` readers at once, after `n_writers` writers, in
    layer `layer`."""

    hook: str
    part: str
    layer: int
    width: int
    n_writers: int

    def readers(self) -> list[str]:
        """The readers' names."""
        if self.part == "logits":
            return ["logits"]
        return (
            [f"m{self.layer}"]
            if self.part == "mlp"
            else [f"a{self.layer}.h{h}.{self.part}" for h in range(self.width)]
        )


def writers(model: Any) -> list[str]:
    """The names of the U writers, in order: `embed`, `aL.hH`, `mL`."""
    layers, heads = range(model.cfg.n_layers), range(model.cfg.n_heads)
    return ["embed"] + [
        name for layer in layers for name in [*(f"a{layer}.h{head}" for head in heads), f"m{layer}"]
    ]


def named(model: Any, scores_UR: Tensor) -> list[Edge]:
    """The edges of a model with their scores, largest size first; those that are NaN left out."""
    sources, places = writers(model), sites(model)
    targets = [(name, site.n_writers) for site in places for name in site.readers()]
    table = scores_UR.tolist()
    edges = [
        Edge(sources[u], name, table[u][r])
        for r, (name, n_writers) in enumerate(targets)
        for u in range(n_writers)
        if not math.isnan(table[u][r])
    ]
    return sorted(edges, key=lambda edge: -abs(edge.score))


def by_layer(scores_U: Tensor, n_layers: int) -> tuple[Tensor, Tensor]:
    """Scores of all writers [..., U] as those of the heads [..., L, H] and of the MLPs [..., L]."""
    table = scores_U[..., 1:].unflatten(-1, (n_layers, -1))
    return table[..., :-1], table[..., -1]


def sites(model: Any) -> list[Site]:
    """The hooks at which the stream is read, in the order of computation."""
    cfg, readers = model.cfg, []
    n_kv = getattr(cfg, "n_key_value_heads", None) or cfg.n_heads
    for layer in range(cfg.n_layers):
        before = 1 + layer * (cfg.n_heads + 1)
        for part in "qkv":
            n_readers = cfg.n_heads if part == "q" else n_kv
            name = f"blocks.{layer}.attn.hook_{part}_input"
            readers.append(Site(name, part, layer, n_readers, before))
        parallel = getattr(cfg, "parallel_attn_mlp", False)
        readers.append(
            Site(
                f"blocks.{layer}.hook_mlp_in",
                "mlp",
                layer,
                1,
                before + (0 if parallel else cfg.n_heads),
            )
        )
    last = cfg.n_layers - 1
    return [
        *readers,
        Site(f"blocks.{last}.hook_out", "logits", last, 1, 1 + cfg.n_layers * (cfg.n_heads + 1)),
    ]


def split_inputs(model: Any) -> AbstractContextManager[None]:
    """While open, the inputs of q, k, v and of the MLPs can be hooked one by one. UsageError where
    the architecture cannot."""
    return hooks.enabled(model, use_split_qkv_input=True, use_hook_mlp_in=True)


def parts(task: Task, n_tokens: int = PASS_TOKENS) -> Iterator[Task]:
    """The task in pieces of about n_tokens tokens."""
    size = max(1, n_tokens // task.clean.shape[1])
    for start in range(0, len(task.clean), size):
        yield task.part(slice(start, start + size))


def written(model: Any, tokens_PT: Tensor) -> Tensor:
    """What each writer adds to the stream, [U, P, T, D], up to the attention's output bias."""
    layers = range(model.cfg.n_layers)
    names = [
        "blocks.0.hook_in",
        *(f"blocks.{n}.{end}" for n in layers for end in ("attn.hook_z", "hook_mlp_out")),
    ]
    seen = running.read(model, tokens_PT, names)
    rows = [seen["blocks.0.hook_in"][None]]
    for layer in layers:
        rows += [
            by_head(model, layer, seen[f"blocks.{layer}.attn.hook_z"]),
            seen[f"blocks.{layer}.hook_mlp_out"][None],
        ]
    return torch.cat(rows)


def by_head(model: Any, layer: int, z_PTHE: Tensor) -> Tensor:
    """What each head of a layer adds to the stream, [H, P, T, D], from its z (E wide)."""
    return torch.einsum("pthe,hed->hptd", z_PTHE, model.blocks[layer].attn.W_O)


def check_sum(model: Any, task: Task) -> None:
    """Raise UsageError unless the writers' changes from clean to corrupted add up to the stream's,
    which edges rest on."""
    pair = task.part(slice(0, 1))
    last = f"blocks.{model.cfg.n_layers - 1}.hook_out"
    seen = [
        running.read(model, tokens_PT, [last])[last] for tokens_PT in (pair.clean, pair.corrupted)
    ]
    changed_PTD = (written(model, pair.clean) - written(model, pair.corrupted)).sum(0)
    off = (changed_PTD - (seen[0] - seen[1])).norm() / (seen[0] - seen[1]).norm()
    if not off < 1e-3:
        raise UsageError(
            "this model's stream is not the sum of its embedding, heads and MLPs (off by "
            f"{off:.1%}, at most 0.1% is rounding), as with norms behind attention or MLP: its "
            "nodes and edges cannot be told apart; use a model without them"
        )


def gradients(model: Any, task: Task, names: list[str], edits: list[Hook]) -> list[Tensor]:
    """dm/da for the summed metric m and the activation a at each hook, in a run in which `edits`
    change the model.

    The first edit must make a tensor that requires gradients at or before the first hook.
    """
    with torch.enable_grad():
        logits_PV, acts = running.run(model, task.clean, edits, read=names, last=True)
        total = measure(task, logits_PV).sum()
        return list(torch.autograd.grad(total, [acts[name] for name in names]))


def starting_from(stream_PTD: Tensor) -> Hook:
    """An edit that puts `stream_PTD` in the place of the embedding, with gradients."""
    return "blocks.0.hook_in", lambda acts: stream_PTD.detach().clone().requires_grad_()


@torch.no_grad()
def run_from(model: Any, layer: int, stream_PTD: Tensor, edits: list[Hook]) -> Tensor:
    """Logits [P, V] at the last position of a run that enters at `layer` with the stream given."""
    return running.logits(model, stream_PTD, edits, last=True, enter=layer)
