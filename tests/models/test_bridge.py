"""What the TransformerLens bridge does without a word, so that circuits can rely on it; and the
switches that control it."""

from pathlib import Path

import pytest
import torch

from saelab import models
from saelab.errors import UsageError

TOKENS = torch.randint(1, 257, (2, 7), generator=torch.Generator().manual_seed(0))
SWITCHED = [
    ("use_split_qkv_input", "blocks.1.hook_q_input"),
    ("use_split_qkv_input", "blocks.1.hook_k_input"),
    ("use_attn_result", "blocks.1.attn.hook_result"),
    ("use_hook_mlp_in", "blocks.1.hook_mlp_in"),
]


@pytest.fixture(scope="module")
def bridge(tiny_model: Path):
    """The tiny model with every switch off."""
    return models.load(tiny_model)


def cached(bridge, name: str) -> dict:
    """What `run_with_cache` finds at one hook."""
    return dict(bridge.run_with_cache(TOKENS, names_filter=[name])[1].items())


@pytest.mark.filterwarnings("ignore:run_with_cache. skipped")
@pytest.mark.parametrize(("switch", "name"), SWITCHED)
def test_a_gated_hook_gives_an_empty_cache_until_its_switch_is_on(bridge, switch: str, name: str):
    assert cached(bridge, name) == {}
    with models.enabled(bridge, **{switch: True}):
        assert cached(bridge, name)[name].shape[:2] == TOKENS.shape
    assert cached(bridge, name) == {}


def test_switches_are_put_back_when_the_block_fails(bridge):
    with pytest.raises(RuntimeError), models.enabled(bridge, use_split_qkv_input=True):
        with models.enabled(bridge, use_split_qkv_input=False, use_attn_in=True):
            assert bridge.cfg.use_attn_in and not bridge.cfg.use_split_qkv_input
        assert bridge.cfg.use_split_qkv_input and not bridge.cfg.use_attn_in
        raise RuntimeError
    assert not bridge.cfg.use_split_qkv_input


def test_what_is_no_switch_is_refused(bridge):
    unknown, excluded = (
        models.enabled(bridge, use_everything=True),
        {"use_split_qkv_input": True, "use_attn_in": True},
    )
    with (
        pytest.raises(
            UsageError,
            match="no switch 'use_everything': switches are use_attn_in, use_attn_result",
        ),
        unknown,
    ):
        pass
    with (
        pytest.raises(UsageError, match=r"cannot be used here: .*mutually exclusive"),
        models.enabled(bridge, **excluded),
    ):
        pass
    assert not bridge.cfg.use_split_qkv_input


def change(bridge, name: str) -> float:
    """Largest change of a logit when the activation at `name`, which must fire, is tripled."""
    fired = []

    def triple(acts: torch.Tensor, hook) -> torch.Tensor:
        fired.append(hook.name)
        return acts * 3

    changed = bridge.run_with_hooks(TOKENS, fwd_hooks=[(name, triple)])
    assert len(fired) == 1
    return float((changed - bridge(TOKENS)).abs().max())


def test_a_norms_scale_reaches_the_output_only_while_inputs_are_not_split(bridge):
    for name in (
        "blocks.1.ln1.hook_scale",
        "blocks.1.ln2.hook_scale",
        "blocks.1.attn.hook_z",
        "blocks.1.hook_mlp_out",
    ):
        assert change(bridge, name) > 0.1
    with models.enabled(bridge, use_split_qkv_input=True):
        assert change(bridge, "blocks.1.ln1.hook_scale") == 0.0
        for name in ("blocks.1.ln2.hook_scale", "blocks.1.attn.hook_z", "blocks.1.hook_mlp_out"):
            assert change(bridge, name) > 0.1
        assert (
            change(bridge, "blocks.1.hook_q_input") < 1e-3
        )  # the norm comes after the split, and takes any factor out again


def test_splitting_the_inputs_leaves_the_logits_as_they_were(bridge):
    plain = bridge(TOKENS)
    with models.enabled(bridge, use_split_qkv_input=True, use_attn_result=True):
        torch.testing.assert_close(bridge(TOKENS), plain)


def test_gradients_come_from_hooks_because_a_cache_is_detached(bridge):
    name = "blocks.0.hook_resid_post"
    assert not bridge.run_with_cache(TOKENS)[1][name].requires_grad
    kept: list[torch.Tensor] = []

    def keep(acts: torch.Tensor, hook) -> torch.Tensor:
        kept.append(acts.detach().requires_grad_())
        return kept[0]

    logits = bridge.run_with_hooks(TOKENS, fwd_hooks=[(name, keep)])
    (gradient,) = torch.autograd.grad(logits[0, -1, 5], kept)
    assert gradient[0].abs().min() > 0 and not gradient[1].any()


def test_a_cache_lists_aliases_and_the_hook_knows_its_canonical_name(bridge):
    cache = bridge.run_with_cache(TOKENS)[1]
    assert torch.equal(cache["blocks.1.hook_resid_post"], cache["blocks.1.hook_out"])
    names: list[str] = []
    bridge.run_with_hooks(
        TOKENS, fwd_hooks=[("blocks.1.hook_resid_post", lambda acts, hook: names.append(hook.name))]
    )
    assert (
        names == ["blocks.1.hook_out"] == [models.resolve_hook(bridge, "blocks.1.hook_resid_post")]
    )


def test_a_model_with_shared_keys_has_fewer_key_than_query_heads(assets: Path):
    llama = models.load(assets / "stories260K")
    with models.enabled(llama, use_split_qkv_input=True):
        cache = llama.run_with_cache(TOKENS)[1]
        heads = {
            name: cache[f"blocks.0.{name}"].shape[2]
            for name in ("attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z")
        }
        assert heads == {"attn.hook_q": 8, "attn.hook_k": 4, "attn.hook_v": 4, "attn.hook_z": 8}
        assert cache["blocks.0.hook_q_input"].shape[2:] == (8, 64) and cache[
            "blocks.0.hook_k_input"
        ].shape[2:] == (4, 64)
