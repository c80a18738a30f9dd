"""Neighbours, null and logit lens against hand-worked numbers, simulation and the model's own final
norm."""

import pytest
import torch

from saelab.features import directions
from tests import toy_index as toy


def test_nearest_rows_by_hand():
    W_FD = torch.tensor([[1.0, 0], [0.6, 0.8], [-2, 0.0], [0, 0]])
    index, cosine = directions.nearest(W_FD, W_FD, 2, skip_self=True)
    assert index[0].tolist() == [1, 3]
    assert cosine[0].tolist() == pytest.approx([0.6, 0])
    index, cosine = directions.nearest(W_FD, W_FD, 1, signed=True, skip_self=True)
    assert (index[0].item(), cosine[0].item()) == (2, -1)


def test_blocks_change_nothing(monkeypatch):
    W_FD = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    whole = directions.nearest(W_FD, W_FD, 5, skip_self=True)
    monkeypatch.setattr(directions, "BLOCK", 150)
    for a, b in zip(whole, directions.nearest(W_FD, W_FD, 5, skip_self=True), strict=True):
        assert torch.allclose(a, b)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("width", "n_features"), [(3, 5), (32, 400)])
def test_the_null_cosine_is_that_of_simulated_directions(width, n_features, signed):
    generator = torch.Generator().manual_seed(0)
    others = torch.nn.functional.normalize(
        torch.randn(400, n_features, width, generator=generator), dim=2
    )
    cosine = others[:, :, 0]  # with the first axis: all directions are alike
    best = (cosine.abs() if signed else cosine).max(1).values
    error = best.std().item() / len(best) ** 0.5
    assert (
        abs(directions.null_cosine(width, n_features, signed=signed) - best.mean().item())
        < 4 * error
    )
    assert (
        abs(directions.null_cosine(width, 2 * n_features, signed=signed) - best.mean().item())
        > 4 * error
    )


def test_the_lens_is_the_models_own_final_norm_and_unembedding():
    model, rows_FD = toy.Model(), torch.randn(6, toy.D, generator=torch.Generator().manual_seed(1))
    normed_FD = torch.nn.functional.layer_norm(rows_FD, (toy.D,), model.ln_final.weight, eps=0)
    expected_FV = rows_FD.std(1, correction=0, keepdim=True) * (normed_FD @ model.W_U)
    expected_FV = expected_FV - expected_FV.mean(1, keepdim=True)
    assert torch.allclose(rows_FD @ directions.output_map(model), expected_FV, atol=1e-5)
    tokens, logits = directions.output_tokens(rows_FD, directions.output_map(model), 3)
    order_FV = expected_FV.argsort(1, descending=True)
    assert torch.equal(tokens[:, 0], order_FV[:, :3])
    assert torch.equal(tokens[:, 1], order_FV.flip(1)[:, :3])
    assert torch.allclose(logits[:, 1, 0], expected_FV.min(1).values, atol=1e-5)


@pytest.mark.parametrize(
    ("hook", "residual"),
    [
        ("blocks.2.hook_resid_post", True),
        ("blocks.11.hook_out", True),
        ("blocks.0.hook_mlp_out", True),
        ("blocks.0.attn.hook_z", False),
        ("blocks.0.mlp.hook_post", False),
        ("blocks.0.ln1.hook_normalized", False),
    ],
)
def test_only_hooks_in_the_residual_stream_get_logits(hook, residual):
    assert directions.writes_to_residual(hook) is residual
