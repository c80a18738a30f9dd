"""Compiled programs do what they say, by the attention and logits that a hand computes, and by
cutting every edge."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from saelab import models
from saelab.analysis.circuits.heads import published, truth
from saelab.analysis.circuits.heads.ablation import setting
from saelab.analysis.circuits.planted import compiled as compiling
from saelab.analysis.circuits.planted import program as programs
from saelab.tasks import measure
from tests.analysis import compiled
from tests.analysis.compiled import SATURATED, SOFT, compile_program, compiled_task

NAMES = [*compiled.PROGRAMS]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """name, sharpness -> (what is true, the bridge, 40 prompts); each compiled once."""
    done = {}

    def make(name: str, sharpness: float = SOFT):
        if (name, sharpness) not in done:
            true = compile_program(name, tmp_path_factory.mktemp(name), sharpness=sharpness)
            bridge = models.load(true.folder)
            done[name, sharpness] = (true, bridge, compiled_task(name, bridge, 40))
        return done[name, sharpness]

    return make


@pytest.mark.parametrize("sharpness", [SOFT, SATURATED])
@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_program_answers_every_prompt(made, name: str, sharpness: float):
    _, bridge, drawn = made(name, sharpness)
    assert torch.equal(bridge(drawn.clean)[:, -1].argmax(-1), drawn.right[:, 0])
    chosen = drawn.wrong[:, 0].clone()
    if name == "selector":
        drawn = drawn._replace(clean=drawn.clean.clone())
        for bits, answer in (
            ((1, 1), drawn.right[:, 0]),
            ((1, 0), chosen),
            ((0, 1), chosen),
            ((0, 0), chosen),
        ):
            drawn.clean[:, 1:3] = torch.tensor(
                [1 + bit for bit in bits]
            )  # words 1 and 2 are "0" and "1"
            assert torch.equal(bridge(drawn.clean)[:, -1].argmax(-1), answer), bits


def test_soft_attention_is_what_a_hand_computes(made):
    _, bridge, drawn = made("selector")
    cache = bridge.run_with_cache(drawn.clean)[1]
    fetch, choose = (
        cache[f"blocks.{layer}.attn.hook_pattern"][:, head, -1] for layer, head in ((0, 0), (1, 2))
    )
    on, off = (weight / (math.exp(5) + 5) for weight in (math.exp(5), 1))
    torch.testing.assert_close(
        fetch[0], torch.tensor([off, on, off, off, off, off]), atol=1e-4, rtol=0
    )
    c = 2 * (on + off) - 1  # each fetching head also sees a little of the other bit
    scores = torch.tensor([0, 0, 0, 10 * c, 5, 0])
    torch.testing.assert_close(choose[0], scores.softmax(0), atol=1e-3, rtol=0)
    expected = programs.GAIN * (scores.softmax(0)[3] - scores.softmax(0)[4])
    metric = bridge(drawn.clean)[:, -1].gather(1, torch.cat([drawn.right, drawn.wrong], 1))
    torch.testing.assert_close(metric[:, 0] - metric[:, 1], expected.expand(40), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_attention_is_soft_on_its_target_and_saturated_in_the_other_copy(made, name: str):
    for sharpness in (SOFT, SATURATED):
        true, bridge, drawn = made(name, sharpness)
        cache = bridge.run_with_cache(drawn.clean)[1]
        for layer, head in true.heads.nonzero().tolist():
            top = cache[f"blocks.{layer}.attn.hook_pattern"][:, head, -1].max(-1).values
            assert (
                ((top > 0.9) & (top < 0.99)).all() if sharpness == SOFT else (top > 1 - 1e-6).all()
            )


def confirms(true: compiled.Compiled, effects: truth.Effects, level: float) -> bool:
    """Whether the measured circuit is the compiled one, and no component is left undecided."""
    found = truth.members(effects, level)
    same = torch.equal(found.heads, true.heads) and torch.equal(found.mlps, true.mlps)
    return same and not found.undecided_heads.any() and not found.undecided_mlps.any()


@pytest.mark.parametrize("sharpness", [SOFT, SATURATED])
@pytest.mark.parametrize("name", NAMES)
def test_exhaustive_ablation_finds_the_circuit_that_was_compiled(made, name: str, sharpness: float):
    true, bridge, drawn = made(name, sharpness)
    for kind, effects in truth.measure_all(
        setting(bridge, drawn), ("resample", "zero")
    ).effects.items():
        assert all(confirms(true, effects, level) for level in truth.LEVELS), kind
        assert (
            effects.heads[~true.heads][:, 0].abs().max() < 1e-3
            and effects.heads[true.heads][:, 0].min() > 0.9
        )


def test_a_decoy_that_is_none_is_caught(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plain = compiling._decoy_head

    def leaky(var: programs.Variables, width: int, generator: torch.Generator) -> programs.Head:
        return plain(var, width, generator)._replace(
            output=torch.randn(width, len(var.where["out"])) @ var("out").T
        )

    torch.manual_seed(0)
    monkeypatch.setattr(compiling, "_decoy_head", leaky)
    true = compile_program("selector", tmp_path)
    bridge = models.load(true.folder)
    effects = truth.effects(setting(bridge, compiled_task("selector", bridge, 40)))
    assert not confirms(true, effects, 0.05)


@pytest.mark.parametrize("name", NAMES)
def test_decoys_are_busy_and_can_be_left_out(made, tmp_path: Path, name: str):
    true, bridge, drawn = made(name)
    quiet = models.load(compile_program(name, tmp_path, decoys=False).folder)
    for model, busy in ((bridge, True), (quiet, False)):
        clean, twin = (model.run_with_cache(tokens)[1] for tokens in (drawn.clean, drawn.corrupted))
        for layer, head in (~true.heads).nonzero().tolist():
            hook = f"blocks.{layer}.attn.hook_z"
            assert (
                bool((clean[hook][:, :, head] - twin[hook][:, :, head]).abs().max() > 0.1) == busy
            )
    torch.testing.assert_close(
        bridge(drawn.clean)[:, -1], quiet(drawn.clean)[:, -1], atol=0.02, rtol=0
    )


def sent_along(cache, sender: str) -> torch.Tensor:
    """What a node adds to the residual stream, [P, T, D]."""
    if sender == "embed":
        return cache["blocks.0.hook_resid_pre"]
    layer = int(sender[1])
    return (
        cache[f"blocks.{layer}.hook_mlp_out"]
        if sender[0] == "m"
        else cache[f"blocks.{layer}.attn.hook_result"][:, :, int(sender[4])]
    )


def effect_through(bridge, drawn, edge: programs.Edge, zero: bool) -> float:
    """Fall of the metric when the receiver, alone, sees the sender's twin (or nothing but the
    constant), as a share of it all."""
    sender, receiver = edge
    with models.enabled(
        bridge, use_split_qkv_input=True, use_attn_result=True, use_hook_mlp_in=True
    ):
        clean, twin = (
            sent_along(bridge.run_with_cache(tokens)[1], sender)
            for tokens in (drawn.clean, drawn.corrupted)
        )
        change = (torch.zeros_like(clean) if zero else twin) - clean
        change[..., [0, change.shape[-1] // 2]] *= 0.0 if zero else 1.0  # where the constant stands

        def add(acts: torch.Tensor, hook) -> torch.Tensor:
            changed = acts.clone()
            seen = changed[:, :, int(receiver[4])] if acts.ndim == 4 else changed
            seen += change
            return changed

        where = {"l": "blocks.1.hook_out", "m": f"blocks.{receiver[1]}.hook_mlp_in"}.get(
            receiver[0]
        )
        where = where or f"blocks.{receiver[1]}.hook_{receiver[-1]}_input"
        after = measure(drawn, bridge.run_with_hooks(drawn.clean, fwd_hooks=[(where, add)])).mean()
    whole = measure(drawn, bridge(drawn.clean)).mean()
    return float((whole - after) / whole)  # with all heads resampled the metric is 0


def possible_edges() -> list[programs.Edge]:
    """Every edge between embedding, heads, MLPs and logits of two layers of four heads."""
    rank = {"em": 0, "a0": 1, "m0": 2, "a1": 3, "m1": 4, "lo": 5}
    heads = [f"a{layer}.h{head}" for layer in range(2) for head in range(4)]
    receivers = [*(f"{head}.{part}" for head in heads for part in "qkv"), "m0", "m1", "logits"]
    return [
        (a, b)
        for a in ("embed", "m0", "m1", *heads)
        for b in receivers
        if rank[a[:2]] < rank[b[:2]]
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_edges_are_those_that_matter_when_each_is_cut(made, name: str):
    true, bridge, drawn = made(name)
    drawn = drawn.part(slice(0, 12))
    found = {
        edge
        for edge in possible_edges()
        if abs(effect_through(bridge, drawn, edge, zero=False)) > 0.05
    }
    assert found == set(true.edges)
    assert all(
        abs(effect_through(bridge, drawn, edge, zero=True)) > 0.05
        for edge in (*true.edges, *true.fixed)
    )


def test_a_saturated_query_passes_no_gradient_and_still_matters(made):
    passed = []
    for sharpness in (SOFT, SATURATED):
        _, bridge, drawn = made("selector", sharpness)
        twin = bridge.run_with_cache(drawn.corrupted)[1]["blocks.0.hook_mlp_out"]
        kept: list[torch.Tensor] = []

        def keep(acts: torch.Tensor, hook, kept=kept) -> torch.Tensor:
            kept.append(acts.detach().requires_grad_())
            return kept[0]

        logits = bridge.run_with_hooks(drawn.clean, fwd_hooks=[("blocks.0.hook_mlp_out", keep)])[
            :, -1
        ]
        metric = (logits.gather(1, drawn.right) - logits.gather(1, drawn.wrong)).mean()
        (gradient,) = torch.autograd.grad(metric, kept)
        passed.append(float((gradient * (twin - kept[0]).detach()).sum().abs()))
    assert passed[0] > 0.5 and passed[1] < 1e-3


def test_published_circuits_have_the_sizes_that_were_published():
    sizes = {
        name: (len(found.heads()), len(found.mlps)) for name, found in published.PUBLISHED.items()
    }
    assert sizes == {"ioi": (26, 12), "greater-than": (9, 8), "docstring": (6, 0)}
    for found in published.PUBLISHED.values():
        assert len(set(found.edges)) == len(found.edges)
        heads = {f"a{layer}.h{head}" for layer, head in found.heads()}
        assert {
            node[:-2] if node[-2] == "." else node
            for edge in found.edges
            for node in edge
            if node[0] == "a"
        } <= heads
    docstring = published.PUBLISHED["docstring"].edges
    inputs = {target for _, target in docstring if target != "logits"}
    assert (
        len(docstring) + len(inputs) == 37
    )  # the authors also count each input's way into its head
