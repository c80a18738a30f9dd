"""A zoo of SAEs with one known fault each: the metric for that fault flags it, and those that
should not mind do not."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from saelab import SAE, Choice, matching
from saelab.code import Code
from saelab.evaluation import controls, ground_truth, probing
from saelab.evaluation.consistency import batch_dependence, gradient_dependence
from saelab.evaluation.synthetic import World
from tests.evaluation.test_probing import planted
from tests.evaluation.worlds import SMALL, fvu, oracle

WORLD = World(SMALL)
X, TRUTH = WORLD.sample(3000, seed=8)
GRAD = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))


def good() -> SAE:
    """Knows the world by heart, with a token budget."""
    sae = oracle(WORLD)
    sae.sparsify = Choice(12)
    sae.b_enc.data.fill_(-0.2)
    return sae


def shrunk() -> SAE:
    """Writes too little."""
    sae = good()
    sae.W_dec.data *= 0.3
    return sae


def rotated() -> SAE:
    """Writes in a basis of its own."""
    sae = good()
    sae.W_dec.data @= torch.linalg.qr(
        torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    ).Q
    return sae


def permuted() -> SAE:
    """The right dictionary, each row at another latent."""
    return controls.permuted_decoder(good(), seed=1)


def wrong_hook() -> SAE:
    """An SAE of the same shape from another world."""
    sae = oracle(World(replace(SMALL, seed=1)))
    sae.sparsify = Choice(12)
    return sae


def label_leaking() -> SAE:
    """Uses the gradient, which knows the next token."""
    sae = good()
    sae.sparsify = Choice(2, beta=50.0)
    return sae


def batch_dependent() -> SAE:
    """A budget over the batch, not frozen."""
    sae = good()
    sae.sparsify = Choice(2, over="batch")
    return sae


class Measured(NamedTuple):
    """What every metric says of one SAE."""

    fvu: float
    mcc: float
    f1: float
    batch: float
    gradient: float


@torch.no_grad()
def measured(sae: SAE) -> Measured:
    """All metrics; without a gradient where the SAE takes none."""
    takes_gradient = isinstance(sae.sparsify, Choice) and sae.sparsify.beta > 0
    plain = sae.frozen() if takes_gradient else sae
    found = ground_truth.partners(sae.W_dec, WORLD.directions_GD)
    counts = ground_truth.counts(plain.encode(X), TRUTH, found, signed=False)
    f1 = float(ground_truth.detection(counts).f1.mean())

    def encode(x: Tensor) -> Code:
        return plain.encode(x)

    gradient = gradient_dependence(sae, X[:64], GRAD) if takes_gradient else 0.0
    mcc = matching.mcc(sae.W_dec, WORLD.directions_GD)
    return Measured(fvu(plain, X), mcc, f1, batch_dependence(encode, X[:64]), gradient)


def test_the_good_one_passes_everything():
    found = measured(good())
    assert found.fvu < 0.02 and found.mcc > 0.99 and found.f1 > 0.99
    assert found.batch == found.gradient == 0


@pytest.mark.parametrize(
    ("bad", "flagged", "unmoved"),
    [
        (shrunk, lambda m: m.fvu > 0.4, ("mcc", "f1", "batch", "gradient")),
        (rotated, lambda m: m.fvu > 0.9 and m.mcc < 0.6 and m.f1 < 0.3, ("batch", "gradient")),
        (permuted, lambda m: m.fvu > 1 and m.f1 < 0.5, ("mcc", "batch", "gradient")),
        (wrong_hook, lambda m: m.fvu > 0.3 and m.mcc < 0.6 and m.f1 < 0.7, ("batch", "gradient")),
        (label_leaking, lambda m: m.gradient > 0.2, ("mcc", "batch")),
        (batch_dependent, lambda m: m.batch > 0.2, ("mcc", "gradient")),
    ],
)
def test_each_fault_is_flagged_by_its_metric(
    bad: Callable[[], SAE], flagged: Callable[[Measured], bool], unmoved: tuple
):
    found, expected = measured(bad()), measured(good())
    assert flagged(found), found
    assert not flagged(expected)
    for name in unmoved:
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-5), name


def test_the_inference_form_mends_what_leaks_and_what_depends_on_the_batch():
    frozen = batch_dependent()
    frozen.calibrate([X])
    frozen = frozen.frozen()
    assert batch_dependence(frozen.encode, X[:64]) == 0
    leaking = label_leaking()
    assert gradient_dependence(leaking.frozen(), X[:64], GRAD) == 0


def test_a_leak_shows_as_a_probe_that_beats_the_dense_one():
    """Latents that are told the label, in the place of one that is not in the activations at
    all."""
    train, test = planted(2000, 0), planted(2000, 1)
    splits = []
    for part in (train, test):
        coin = (
            torch.rand(len(part.x), generator=torch.Generator().manual_seed(len(splits))).numpy()
            < 0.5
        )
        codes = probing.latents(good(), part.x).toarray()
        codes[:, 0] = coin
        splits.append((part, codes, coin))
    leak = [probing.Examples(codes, coin, part.groups) for part, codes, coin in splits]
    honest = [probing.Examples(part.x.numpy(), coin, part.groups) for part, _, coin in splits]
    assert probing.probe(leak[0], leak[1], 1).accuracy.value == 1.0
    assert probing.probe(honest[0], honest[1], None).accuracy.high < 0.6
