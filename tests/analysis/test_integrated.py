"""Effects by integrated gradients: against ablations, and the gradient at the activation."""

from pathlib import Path

import pytest
import torch

from saelab import models
from saelab.analysis import prompts
from saelab.analysis.prompts.ablation import losses_without
from tests.analysis.dictionaries import RESIDUAL, Z, dictionary

TEXT = "alpha beta"


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return models.load(tiny_model)


@pytest.mark.parametrize("which", [RESIDUAL, Z])
def test_integrated_effects_are_exact_where_pairs_go_alone_in_many_steps(model, which: str):
    """The integral of the slope over a pair's way is what the loss loses by it."""
    sae = dictionary(which, seed=2)
    sae.W_dec.data *= 6  # values so large that first order is far off
    read = prompts.read(model, sae, prompts.prompt(model, TEXT[:9]))
    assert read.loss is not None
    first_N, rough_N = prompts.table(read).effect, prompts.integrated(model, read)
    alone_N = prompts.integrated(model, read, steps=12, apart=len(read.prompt.tokens))
    assert alone_N is not None and rough_N is not None and first_N is not None
    own_M = (alone_N != first_N).nonzero()[:, 0]
    exact_M = float(read.loss.double().sum()) - losses_without(model, read, own_M)
    errors = [
        float((effect_N[own_M] - exact_M).norm() / exact_M.norm())
        for effect_N in (alone_N, rough_N, first_N)
    ]
    assert errors[0] < 0.02 and errors[0] < errors[1] < errors[2]  # the last: known-bad twin


def test_small_pairs_have_the_gradient_at_the_activation(model):
    read = prompts.read(model, dictionary(RESIDUAL), prompts.prompt(model, TEXT))
    first_N = prompts.table(read).effect
    none_N, one_N = (prompts.integrated(model, read, largest=n) for n in (0, 1))
    assert first_N is not None and none_N is not None and one_N is not None
    torch.testing.assert_close(none_N.cpu(), first_N)
    moved_N = (one_N.cpu() - first_N).abs() > 1e-9
    sizes_N = read.written.abs() * read.sae.W_dec.detach().norm(dim=1)[read.code.features]
    for position in read.code.tokens.unique().tolist():
        its_N = (read.code.tokens == position).nonzero()[:, 0]
        largest = int(its_N[sizes_N[its_N].argmax()])
        assert set(its_N[moved_N[its_N]].tolist()) <= {largest}
