"""Learned levels: straight-through gradients by hand, and the twin that sees only the upper half of
the window."""

import pytest
import torch

from saelab import SAE, jump
from saelab.code import Code
from saelab.sparsify import Threshold

EPS = 0.4


def sae_of(u: float) -> tuple[SAE, torch.Tensor]:
    """An identity SAE with levels 1 and the token whose first pre-activation is u."""
    sae = SAE(2, 2, Threshold(1.0, bandwidth=EPS))
    sae.W_enc.data, sae.W_dec.data = torch.eye(2), torch.eye(2)
    return sae, torch.tensor([[u, -5.0]])


@pytest.mark.parametrize(
    ("u", "value", "near"),
    [(0.7, 0.0, False), (0.9, 0.0, True), (1.1, 1.1, True), (1.3, 1.3, False), (-0.9, 0.0, False)],
)
def test_values_and_gradients_of_one_unit(u, value, near):
    sae, x = sae_of(u)
    code = sae.encode(x)
    assert code.values.sum().item() == pytest.approx(value)
    weighted = 3 * code.values.sum()
    (by_value,) = torch.autograd.grad(weighted, sae.levels, retain_graph=True)
    assert by_value.tolist() == pytest.approx([-3 * 1.0 / EPS if near else 0.0, 0.0])
    count = jump.l0(code, sae.levels, EPS)
    assert count.item() == (value != 0)
    (by_count,) = torch.autograd.grad(count, sae.levels)
    assert by_count.tolist() == pytest.approx([-1 / EPS if near else 0.0, 0.0])


def test_a_window_of_firing_pairs_alone_would_be_caught():
    def firing_only(code: Code, levels_F: torch.Tensor, bandwidth: float) -> torch.Tensor:
        """The step function of values after the jump: its lower half can never be seen."""
        return (code.values != 0) & (code.values - levels_F[code.features] < bandwidth / 2)

    sae, x = sae_of(0.9)
    code = sae.encode(x)
    assert jump.near(code, sae.levels, EPS).any() and not firing_only(code, sae.levels, EPS).any()


def test_the_expected_gradient_is_that_of_the_smoothed_loss():
    """Averaged over u, the straight-through gradient of E[L0] and E[z] equals the derivative of the
    averages in the level."""
    u = torch.linspace(0, 3, 30_001)[:, None]
    sae = SAE(1, 1, Threshold(1.0, bandwidth=EPS)).double()
    sae.W_enc.data, sae.W_dec.data = torch.ones(1, 1).double(), torch.ones(1, 1).double()
    code = sae.encode(u.double())
    (by_count,) = torch.autograd.grad(jump.l0(code, sae.levels, EPS), sae.levels, retain_graph=True)
    (by_value,) = torch.autograd.grad(code.values.sum() / len(u), sae.levels)
    # u uniform on [0, 3]: E[L0] = (3 - level) / 3, E[z] = (9 - level^2) / 6
    assert by_count.item() == pytest.approx(-1 / 3, rel=1e-3) and by_value.item() == pytest.approx(
        -1 / 3, rel=1e-3
    )


def test_the_inference_form_of_learned_levels_is_saved(tmp_path):
    sae, _ = sae_of(1.0)
    sae.levels.data = torch.tensor([0.5, 2.0])
    sae.frozen().save(tmp_path)
    again = SAE.load(tmp_path)
    assert again.sparsify == Threshold(1.0) and torch.equal(again.levels, sae.levels)
    sae.save(tmp_path)
    assert isinstance(SAE.load(tmp_path).levels, torch.nn.Parameter)
