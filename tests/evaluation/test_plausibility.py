"""An SAE that knows the truth looks right; each of a few mistakes is found and named."""

import copy

import pytest
import torch

from saelab import SAE, Threshold
from saelab.errors import UsageError
from saelab.evaluation.plausibility import plausibility
from saelab.origin import Origin
from saelab.scaling import fold

N, F, D, K = 2048, 192, 128, 3


def rows(n: int, width: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)


def world(seed: int = 0) -> tuple[SAE, torch.Tensor]:
    """Sparse sums of known directions around a mean, and an SAE made of these directions."""
    generator = torch.Generator().manual_seed(seed)
    directions_FD, mean_D = rows(F, D, seed), rows(1, D, seed + 1)[0] * 20
    code_NF = torch.rand(N, F, generator=generator) * 2 + 6
    code_NF *= torch.rand(N, F, generator=generator) < K / F
    sae = SAE(D, F, Threshold())
    sae.levels = torch.full((F,), 3.5)
    sae.W_enc.data.copy_(directions_FD)
    sae.W_dec.data.copy_(directions_FD)
    sae.b_dec.data.copy_(mean_D)
    sae.origin = Origin(hook="blocks.1.hook_out", k=K)
    return sae, code_NF @ directions_FD + mean_D


def test_an_sae_of_the_truth_looks_right():
    sae, x_ND = world()
    seen = plausibility(sae, x_ND)
    assert seen.wrong == "" and seen.fvu < 0.4 * seen.pca and seen.permuted > 1
    assert seen.l0 == pytest.approx(K, rel=0.4) and seen.dead == 0 and seen.recorded == K


def uncentred(sae: SAE) -> None:
    sae.b_enc.data -= (sae.W_enc @ sae.b_dec).detach()


def turned_round(sae: SAE) -> None:
    sae.W_dec.data.copy_(sae.W_dec.data.flip(1))


MISTAKES = {
    "input scale off by 3.36": lambda sae: fold(sae, 3.36),
    "not centred in its source": uncentred,
    "": turned_round,
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_found_and_named(what: str):
    sae, x_ND = world()
    wrong = copy.deepcopy(sae)
    MISTAKES[what](wrong)
    seen = plausibility(wrong, x_ND)
    assert "FVU" in seen.wrong or "L0" in seen.wrong
    assert what in seen.wrong
    assert bool(what) == ("would be" in seen.wrong)  # of no mistake that is known nothing is said


def test_another_layer_is_named():
    sae, x_ND = world()
    _, other_ND = world(seed=5)
    seen = plausibility(sae, other_ND, others={"blocks.1.hook_out": x_ND})
    assert "of another layer, blocks.1.hook_out" in seen.wrong


def test_a_recorded_l0_that_is_far_off_and_another_width_are_said():
    sae, x_ND = world()
    sae.origin = Origin(k=64)
    assert "recorded 64" in plausibility(sae, x_ND).wrong
    with pytest.raises(UsageError, match="are 47 wide, the SAE reads 128"):
        plausibility(sae, x_ND[:, :47])
