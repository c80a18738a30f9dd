"""Losses by hand, and the AuxK bugs that public code has had, each of which must be caught."""

import pytest
import torch

from saelab import losses


def test_a_mean_predictor_has_reconstruction_loss_one():
    x = torch.randn(100, 7, generator=torch.Generator().manual_seed(0))
    variance = float((x - x.mean(0)).square().sum(1).mean())
    assert losses.reconstruction(x.mean(0).expand_as(x), x, variance).item() == pytest.approx(1.0)
    assert losses.reconstruction(x, x, variance).item() == 0


def setting() -> dict[str, torch.Tensor]:
    """Inputs, residuals and three dead features, almost silent at first."""
    g = torch.Generator().manual_seed(1)
    x = torch.randn(50, 4, generator=g)
    W = torch.nn.functional.normalize(torch.randn(3, 4, generator=g), dim=1)
    return {
        "x": x,
        "error": 0.3 * x + 0.1 * torch.randn(50, 4, generator=g),
        "W_enc": 0.05 * W,
        "b": torch.zeros(3),
        "W_dec": W.clone(),
    }


def descends(aux) -> bool:
    """Whether small steps on the loss alone bring e_hat closer to the true residual."""
    s = setting()
    weights = [s["W_enc"].requires_grad_(), s["b"].requires_grad_(), s["W_dec"].requires_grad_()]
    before = losses.aux_k(s["x"], s["error"], *weights, 2).item()
    for _ in range(20):
        loss = aux(s["x"], s["error"], *weights, 2)
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.data -= 0.05 * gradient
    return losses.aux_k(s["x"], s["error"], *weights, 2).item() < before


def test_aux_k_moves_dead_features_towards_the_residual_and_a_flipped_sign_does_not():
    assert descends(losses.aux_k)
    assert not descends(lambda x, error, *rest: losses.aux_k(x, -error, *rest))


def test_aux_k_by_hand():
    x, error = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    eye = torch.eye(2)
    # codes are [[2,0],[0,3]]; e_hat - e = [[1,0],[0,2]]: 5; spread of e about its mean (.5,.5): 1
    assert losses.aux_k(x, error, eye, torch.zeros(2), eye, 1).item() == pytest.approx(5.0)


def test_aux_k_reaches_encoder_and_decoder_of_the_dead_and_neither_input_nor_residual():
    s = {name: value.requires_grad_() for name, value in setting().items()}
    losses.aux_k(s["x"], s["error"], s["W_enc"], s["b"], s["W_dec"], 2).backward()
    assert s["x"].grad is None and s["error"].grad is None
    assert all(s[name].grad.abs().sum() > 0 for name in ("W_enc", "b", "W_dec"))


def test_a_vanished_residual_gives_no_loss_instead_of_nan():
    eye = torch.eye(2)
    assert losses.aux_k(torch.zeros(3, 2), torch.zeros(3, 2), eye, torch.zeros(2), eye, 1).item() == 0
