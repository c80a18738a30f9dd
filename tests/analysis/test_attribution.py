"""Pre-activations split over heads, sources and residual features: exact sums, planted sources,
predicted ablations."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from saelab import SAE, Choice, models
from saelab.analysis import frozen
from saelab.analysis.attention import attribution, tracing
from saelab.code import Code
from saelab.errors import UsageError
from tests.analysis.dictionaries import RESIDUAL, Z, dictionary, random_task

TOKENS = random_task().clean[:2]
EXACT = 1e-5


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return models.load(tiny_model)


def in_float64(sae: SAE, x_BD: Tensor, code: Code) -> Tensor:
    """The pre-activation of every pair, from the definition."""
    pre_BF = (x_BD.double() - sae.b_dec.double()) @ sae.W_enc.double().T + sae.b_enc.double()
    return pre_BF[code.tokens, code.features].detach()


def miss(parts: Tensor, bias_N: Tensor, whole_N: Tensor) -> float:
    """The largest difference between a sum of parts [N, ...] with its bias and the whole [N],
    relative to the largest whole."""
    return float(
        (parts.flatten(1).double().sum(1) + bias_N - whole_N).abs().max() / whole_N.abs().max()
    )


@pytest.fixture(scope="module")
def seen(model):
    """(SAE on concatenated heads, its code, z [B, H, E], pattern, v [C, S, H, E]) of two
    contexts."""
    sae, held = dictionary(Z, seed=3), frozen.freeze(model, TOKENS)
    acts = frozen.run(model, held, {}, [Z, "blocks.1.attn.hook_v"])
    with torch.no_grad():
        code = sae.encode(acts[Z])
    v_CSHE = acts["blocks.1.attn.hook_v"].view(2, -1, 4, 8)
    return sae, code, acts[Z].view(-1, 4, 8), held.held["blocks.1.attn.hook_pattern"], v_CSHE


def test_heads_and_sources_add_up_to_the_pre_activation(seen):
    sae, code, z_BHE, pattern, v = seen
    whole_N, bias_N = in_float64(sae, z_BHE.flatten(1), code), attribution.bias(sae, code.features)
    by_head, by_source = (
        attribution.by_head(sae, z_BHE, code),
        attribution.by_source(sae, pattern, v, code),
    )
    assert miss(by_head, bias_N, whole_N) < EXACT and miss(by_source, bias_N, whole_N) < EXACT
    torch.testing.assert_close(by_source.sum(2), by_head)


def test_wrong_splits_are_caught(seen):
    sae, code, z_BHE, pattern, v = seen
    whole_N, bias_N = in_float64(sae, z_BHE.flatten(1), code), attribution.bias(sae, code.features)
    by_head = attribution.by_head(sae, z_BHE, code)
    assert miss(by_head, 0 * bias_N, whole_N) > 0.01
    assert miss(attribution.by_head(sae, z_BHE.flip(1), code), bias_N, whole_N) > 0.01
    assert miss(attribution.by_source(sae, pattern.flip(1), v, code), bias_N, whole_N) > 0.01


def test_pieces_of_a_split_are_the_whole(seen, monkeypatch: pytest.MonkeyPatch):
    sae, code, z_BHE, *_ = seen
    whole = attribution.by_head(sae, z_BHE, code)
    monkeypatch.setattr(attribution, "CHUNK", 7 * 32 * 3)
    torch.testing.assert_close(attribution.by_head(sae, z_BHE, code), whole)


def test_a_planted_head_and_source_are_found():
    sae = SAE(8, 8, Choice(1))
    sae.W_enc.data, sae.W_dec.data = torch.eye(8), torch.eye(8)
    pattern, v = torch.zeros(1, 2, 3, 3), torch.zeros(1, 3, 2, 4)
    pattern[0, 1, 2, 1], v[0, 1, 1, 3] = (
        1,
        5.0,
    )  # head 1 attends from 2 to 1, where its value is feature 7
    z_BHE = torch.einsum("chts,cshe->cthe", pattern, v)[0]
    code = Code(torch.tensor([0, 0, 0, 1]), torch.tensor([7]), torch.tensor([5.0]), 8)
    expected = torch.zeros(1, 2, 3)
    expected[0, 1, 1] = 5
    assert torch.equal(attribution.by_source(sae, pattern, v, code), expected)
    assert attribution.by_head(sae, z_BHE, code).tolist() == [[0, 5]]
    assert attribution.head_shares(sae, 2)[7].tolist() == [0, 1]


def test_decoder_shares_by_hand():
    sae = SAE(4, 1, Choice(1))
    sae.W_dec.data = torch.tensor([[3.0, 4.0, 0.0, 5.0]]) / 50**0.5
    torch.testing.assert_close(attribution.head_shares(sae, 2), torch.tensor([[0.5, 0.5]]))
    with pytest.raises(UsageError, match="width 4 is no multiple of 3 heads"):
        attribution.head_shares(sae, 3)


def test_residual_features_add_up_and_foretell_their_ablation(model):
    sae, residual, at = dictionary(Z, seed=3), dictionary(RESIDUAL, seed=4), 6
    held = frozen.freeze(model, TOKENS[:1])
    acts = frozen.run(model, held, {}, [Z, RESIDUAL])
    with torch.no_grad():
        code = sae.encode(acts[Z][0, at : at + 1])
    feature, whole = int(code.features[0]), float(code.values[0])
    found = attribution.by_residual_feature(model, held, sae, residual, feature, at)
    assert float(found.values.sum() + found.errors.sum()) + found.bias == pytest.approx(
        whole, rel=1e-5
    )
    assert found.values.abs().diff().max() <= 0 and 0 not in found.positions.tolist()

    exact, free = (
        tracing.lost(model, run, sae, residual, found, feature, at)
        for run in (held, held._replace(held={}))
    )
    assert float((exact - found.values).abs().max()) < 1e-5 * abs(whole)
    # Patterns and norms move: the prediction is not exact.
    assert float((free - found.values).abs().max()) > 1e-3
    assert float(torch.corrcoef(torch.stack([free, found.values]))[0, 1]) > 0.5


def test_grouped_value_heads_of_a_real_llama(assets: Path):
    llama = models.load(assets / "stories260K")
    tokens, hook = (
        torch.randint(3, 500, (1, 6), generator=torch.Generator().manual_seed(0)),
        "blocks.2.attn.hook_z",
    )
    held = frozen.freeze(llama, tokens)
    acts = frozen.run(llama, held, {}, [hook, "blocks.2.attn.hook_v"])
    sae = dictionary(hook, width=64, seed=1)
    with torch.no_grad():
        code = sae.encode(acts[hook])
    v_CSHE = acts["blocks.2.attn.hook_v"].view(1, 6, 4, 8)
    split = attribution.by_source(sae, held.held["blocks.2.attn.hook_pattern"], v_CSHE, code)
    assert (
        miss(split, attribution.bias(sae, code.features), in_float64(sae, acts[hook][0], code))
        < EXACT
    )
