"""Neighbours, null and logit lens against hand-worked numbers, simulation and the model's own final
norm."""

import pytest
import torch

from saelab.features import directions
from tests import toy_index as toy


def test_nearest_rows_by_hand():
    W_FD = torch.tensor([[1.0, 0], [0.6, 0.8], [-2, 0.0], [0, 0]])
    index, cosine = directions.nearest(W_FD, W_FD, 2, skip_self=True)
    assert index[0].tolist() == [1, -1]  # none other is on its side
    assert cosine[0].tolist() == pytest.approx([0.6, 0])
    assert index[3].tolist() == [-1, -1]
    index, cosine = directions.nearest(W_FD, W_FD, 1, signed=True, skip_self=True)
    assert (index[0].item(), cosine[0].item()) == (2, -1)


def test_rows_that_are_the_same_are_each_others_neighbours_and_not_their_own():
    W_FD = torch.ones(5, 3)
    index, cosine = directions.nearest(W_FD, W_FD, 3, skip_self=True)
    assert all(row not in index[row] for row in range(5))
    assert torch.allclose(cosine, torch.ones(5, 3))


@pytest.mark.parametrize("signed", [False, True])
def test_the_nearest_are_those_of_the_whole_product(monkeypatch, signed):
    W_FD = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(directions, "ROWS", 70)
    index, cosine = directions.nearest(W_FD, W_FD, 5, signed=signed, skip_self=True)
    unit_FD = torch.nn.functional.normalize(W_FD.double(), dim=1)
    whole_FF = (unit_FD @ unit_FD.T).fill_diagonal_(0)
    order_FF = (whole_FF.abs() if signed else whole_FF).argsort(1, descending=True)
    assert torch.equal(index, order_FF[:, :5])
    expected = whole_FF.gather(1, index).float()
    assert torch.allclose(cosine, expected, atol=1e-6)
    assert not signed or (cosine < 0).any()


def test_the_shares_of_heads_are_of_norms_not_of_their_squares():
    W_FD = torch.tensor([[3.0, 4, 0, 0], [3, 0, 0, 1], [0, 0, 0, 0]])
    assert directions.head_shares(W_FD, 2).tolist() == [[1, 0], [0.75, 0.25], [0, 0]]


def test_a_map_lays_groups_of_directions_apart(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    centre_FD = torch.eye(16)[:3].repeat_interleave(20, 0)
    W_FD = centre_FD + 0.05 * torch.randn(60, 16, generator=generator)
    alive_F = torch.ones(60, dtype=torch.bool)
    alive_F[7] = False
    for most, name in ((20_000, "t-SNE"), (10, "PCA")):
        monkeypatch.setattr(directions, "MOST_TSNE", most)
        method, places_F2 = directions.plane(W_FD, alive_F)
        assert method == name
        assert places_F2[7].isnan().all() and not places_F2[alive_F].isnan().any()
        assert places_F2[alive_F].abs().max() == pytest.approx(1)
        inner, groups = [], places_F2.unflatten(0, (3, 20))
        centres = torch.stack([group[~group.isnan().any(1)].mean(0) for group in groups])
        for group, centre in zip(groups, centres, strict=True):
            inner.append((group[~group.isnan().any(1)] - centre).norm(dim=1).mean())
        assert torch.pdist(centres).min() > 2 * torch.stack(inner).max()


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
