"""Hook points: aliases, switches, and names that do not exist."""

from pathlib import Path

import pytest
import torch

from saelab import models
from saelab.errors import UsageError
from saelab.models import running
from saelab.models.running import gradients, read, shapes


@pytest.fixture
def bridge(tiny_model: Path):
    """The tiny model, freshly loaded: switches stay on once they are."""
    return models.load(tiny_model)


def test_an_alias_resolves_to_the_canonical_name(bridge):
    assert models.resolve_hook(bridge, "blocks.1.hook_resid_post") == "blocks.1.hook_out"
    assert models.resolve_hook(bridge, "blocks.1.hook_out") == "blocks.1.hook_out"
    assert "blocks.1.hook_resid_post" in models.aliases(bridge, "blocks.1.hook_out")


def test_a_star_is_every_layer_and_each_point_comes_once(bridge):
    both = ["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"]
    assert models.once_each(bridge, ["blocks.*.hook_mlp_out"]) == both
    out = "blocks.1.hook_out"
    assert models.once_each(bridge, [out, *both, "blocks.1.hook_resid_post"]) == [out, *both]
    with pytest.raises(UsageError, match=r"no hook 'blocks\.0\.nonsense'"):
        models.once_each(bridge, ["blocks.*.nonsense"])
    with pytest.raises(UsageError, match="no hook named"):
        models.once_each(bridge, [])


def test_an_unknown_hook_is_answered_with_near_ones(bridge):
    with pytest.raises(
        UsageError,
        match=r"no hook 'blocks\.0\.hook_resid_pst'; nearest: blocks\.0\.hook_resid_post",
    ) as error:
        models.resolve_hook(bridge, "blocks.0.hook_resid_pst")
    assert "blocks.0 to blocks.1" in str(error.value)
    with pytest.raises(UsageError, match=r"no hook 'nonsense'; blocks\.0 to blocks\.1 have"):
        models.resolve_hook(bridge, "nonsense")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blocks.0.attn.hook_result", [4, 32]),
        ("blocks.0.hook_q_input", [4, 32]),
        ("blocks.0.hook_attn_in", [4, 32]),
        ("blocks.0.hook_mlp_in", [32]),
    ],
)
def test_hooks_that_are_off_are_switched_on_and_fire(bridge, name: str, shape: list[int]):
    switch = models.hooks.SWITCHES[name.rsplit(".", 1)[-1]]
    assert not getattr(bridge.bridge.cfg, switch)
    assert shapes(bridge, [name]) == {name: shape}
    assert getattr(bridge.cfg, switch)


def test_what_is_read_carries_the_name_that_was_asked_for(bridge):
    tokens = torch.arange(6)[None]
    names = ["blocks.1.hook_resid_mid", "blocks.1.ln2.hook_in", "blocks.1.hook_resid_post"]
    mid, canonical, post = read(bridge, tokens, names).values()
    assert list(read(bridge, tokens, names)) == names
    torch.testing.assert_close(mid, canonical)
    torch.testing.assert_close(
        post, read(bridge, tokens, ["blocks.1.hook_out"])["blocks.1.hook_out"]
    )
    with pytest.raises(UsageError, match=r"no hook 'blocks\.1\.hook_resid_pst'; nearest"):
        read(bridge, tokens, ["blocks.1.hook_resid_pst"])


def test_switches_that_exclude_each_other_are_refused(bridge):
    models.resolve_hook(bridge, "blocks.0.hook_q_input")
    with pytest.raises(UsageError, match="mutually exclusive"):
        models.resolve_hook(bridge, "blocks.0.hook_attn_in")


@pytest.mark.parametrize(
    "name", ["blocks.0.attn.hook_pattern", "blocks.0.attn.hook_attn_scores", "embed.hook_in"]
)
def test_hooks_without_a_vector_per_position_are_refused(bridge, name: str):
    with pytest.raises(
        UsageError, match=r"gives .* of shape .*: only hooks with a float vector per position"
    ):
        shapes(bridge, [models.resolve_hook(bridge, name)])


def test_hooks_that_never_fire_are_named(assets: Path):
    llama = models.load(assets / "stories260K")
    with pytest.raises(
        UsageError,
        match=r"hooks that never fire in this model: blocks\.0\.attn\.hook_hidden_states$",
    ):
        shapes(llama, ["blocks.0.hook_out", "blocks.0.attn.hook_hidden_states"])


def test_layers_above_the_last_hook_do_not_run(bridge):
    ran: list[int] = []
    for layer, block in enumerate(bridge.plain.transformer.h):
        block.register_forward_pre_hook(lambda *_, layer=layer: ran.append(layer))
        point = bridge.hook_dict[f"blocks.{layer}.hook_in"]
        point.add_hook(lambda acts, hook, layer=layer: ran.append(layer))
    for way in ("cheapest", "bridge"):
        ran.clear()
        with running.engine(way):
            read(bridge, torch.zeros(1, 3, dtype=torch.int64), ["blocks.0.hook_out"])
            assert set(ran) == {0}
            read(bridge, torch.zeros(1, 3, dtype=torch.int64), ["blocks.1.hook_out"])
            assert set(ran) == {0, 1}


def test_recording_leaves_no_hook_behind(bridge):
    tokens = torch.zeros(1, 3, dtype=torch.int64)
    for way in ("cheapest", "bridge"):
        with running.engine(way):
            read(bridge, tokens, ["blocks.0.hook_out"])
            gradients(bridge, tokens, ["blocks.0.hook_out"])
    assert not any(point.fwd_hooks for point in bridge.hook_dict.values())
    modules = list(bridge.plain.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_key_and_value_heads_of_a_real_llama_keep_their_shapes(assets: Path):
    llama = models.load(assets / "stories260K")
    names = [
        models.resolve_hook(llama, f"blocks.2.attn.{hook}")
        for hook in ("hook_q", "hook_k", "hook_z")
    ]
    assert list(shapes(llama, names).values()) == [[8, 8], [4, 8], [8, 8]]


def test_gradients_at_several_hooks_are_those_of_each_alone(bridge):
    tokens = torch.randint(1, 257, (2, 9), generator=torch.Generator().manual_seed(0))
    hooks = ["blocks.0.hook_out", "blocks.1.attn.o.hook_in", "blocks.1.hook_out"]
    together = gradients(bridge, tokens, hooks)
    for hook in hooks:
        alone = gradients(bridge, tokens, [hook])
        torch.testing.assert_close(together[f"{hook}.grad"], alone[f"{hook}.grad"])
    assert not together["blocks.1.hook_out.grad"][:, -1].any()  # the last position predicts nothing
