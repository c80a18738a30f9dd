"""Losses by hand, and the AuxK bugs that public code has had, each of which must be caught."""

import pytest
import torch

from saelab import kernels
from saelab.code import Code
from saelab.kernels import autograd
from saelab.sparsify import Choice
from training import losses


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
    assert (
        losses.aux_k(torch.zeros(3, 2), torch.zeros(3, 2), eye, torch.zeros(2), eye, 1).item() == 0
    )


def test_signed_aux_k_takes_the_largest_sizes_with_their_signs():
    x, error, eye = (
        torch.tensor([[-2.0, 1.0], [0.0, 3.0]]),
        torch.tensor([[-1.0, 0.0], [0.0, 1.0]]),
        torch.eye(2),
    )
    # codes are [[-2,0],[0,3]]; e_hat - e = [[-1,0],[0,2]]: 5; spread of e about its mean (-.5,.5):
    # 1
    assert losses.aux_k(x, error, eye, torch.zeros(2), eye, 1, signed=True).item() == pytest.approx(
        5.0
    )
    assert losses.aux_k(x, error, eye, torch.zeros(2), eye, 1).item() == pytest.approx(
        6.0
    )  # [[0,1],[0,3]]: 1 + 1 + 4


class Nested:
    """A code of 4 of 12 features for 30 tokens, and what nested losses need."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(2)
        self.x, self.base = torch.randn(30, 5, generator=g), torch.randn(5, generator=g)
        self.W_dec = torch.randn(12, 5, generator=g).requires_grad_()
        self.code = kernels.choose(self.x, self.W_dec.detach(), torch.zeros(12), Choice(4))

    def loss(self, nest: losses.Nest, code: Code | None = None) -> torch.Tensor:
        return losses.nested(code or self.code, nest, self.W_dec, self.base, self.x, 3.0)[0]

    def plain(self, code: Code) -> torch.Tensor:
        return losses.reconstruction(autograd.decode(code, self.W_dec) + self.base, self.x, 3.0)


def test_one_part_is_the_plain_loss():
    n = Nested()
    plain = n.plain(n.code)
    for nest in (losses.Nest("feature", (12,), (1.0,)), losses.Nest("value", (4,), (1.0,))):
        torch.testing.assert_close(n.loss(nest), plain)
    assert not torch.isclose(n.loss(losses.Nest("feature", (11,), (1.0,))), plain)


def test_matryoshka_is_the_mean_over_truncated_dictionaries():
    n = Nested()
    nest = losses.nest("matryoshka", 4, 12, (3, 6))
    assert nest == losses.Nest("feature", (3, 6, 12), (1 / 3,) * 3)
    truncated = [
        n.plain(n.code.with_values(torch.where(n.code.features < end, n.code.values, 0)))
        for end in nest.ends
    ]
    torch.testing.assert_close(n.loss(nest), sum(truncated) / 3)
    first = losses.Nest("feature", (3,), (1.0,))
    (gradient,) = torch.autograd.grad(n.loss(first), n.W_dec)
    assert gradient[:3].abs().sum() > 0 and not gradient[3:].any()


@pytest.mark.parametrize("loss", ["hierarchical", "multi-k"])
def test_losses_by_value_truncate_to_the_largest_and_notice_shuffled_pairs(loss):
    n = Nested()
    nest = losses.nest(loss, 4 if loss == "hierarchical" else 1, 12)
    dense = n.code.to_dense()
    by_hand = torch.zeros(())
    for end, weight in zip(nest.ends, nest.weights, strict=True):
        best = dense.topk(end, dim=1)
        x_hat = torch.zeros_like(dense).scatter(1, best.indices, best.values) @ n.W_dec + n.base
        by_hand = by_hand + weight * losses.reconstruction(x_hat, n.x, 3.0)
    torch.testing.assert_close(n.loss(nest), by_hand)

    class Shuffled(Code):
        """A twin whose order by value is that of the features."""

        def ranks(self) -> torch.Tensor:
            return torch.arange(len(self.features)) - self.starts[self.tokens]

    twin = Shuffled(n.code.starts, n.code.features, n.code.values, 12)
    assert not torch.isclose(n.loss(nest, twin), by_hand, rtol=1e-3)


def test_the_own_code_of_multi_k_is_that_of_k():
    n = Nested()
    wide = kernels.choose(n.x, n.W_dec.detach(), torch.zeros(12), Choice(8))
    own = losses.nest("multi-k", 2, 12).own(wide)
    assert torch.equal(
        own.to_dense(), kernels.choose(n.x, n.W_dec.detach(), torch.zeros(12), Choice(2)).to_dense()
    )


def test_penalties_by_hand():
    code = Code(torch.tensor([0, 2, 3]), torch.tensor([0, 2, 1]), torch.tensor([1.0, -2.0, 3.0]), 3)
    assert losses.l1(code, 2).item() == pytest.approx(6 / 4)
    soft = sum(torch.tensor(4.0 * v).tanh() for v in (1, 2, 3)) / 4
    assert losses.tanh(code, 2).item() == pytest.approx(float(soft))
    assert losses.l0_target(torch.tensor(3.0), 2).item() == pytest.approx(0.25)
