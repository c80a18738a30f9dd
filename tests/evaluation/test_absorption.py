"""Absorption planted by hand is found with its latent and its rate, and not found where there is
none."""

import numpy as np
import pytest
import scipy.sparse
import torch

from saelab import SAE, Choice
from saelab.evaluation import absorption as absorbing_module
from saelab.evaluation import controls
from saelab.evaluation.absorption import absorption
from saelab.evaluation.labelled import Labelled

WIDTH, N_TOKENS, WITH = 64, 60, 30  # kinds of token; the first half start with s
SILENT = 3  # the token on which the latent for "starts with s" is silent


def tokens(n: int, seed: int) -> tuple[Labelled, np.ndarray]:
    """x = 4 s (on tokens that start with s) + 3 times the token's own direction + noise; all
    directions orthogonal."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, N_TOKENS, n)
    x = 0.05 * rng.standard_normal((n, WIDTH))
    x[np.arange(n), 1 + kind] += 3
    x[kind < WITH, 0] += 4
    return Labelled(
        torch.from_numpy(x).float(), {"starts with s": kind < WITH}, np.arange(n) // 5
    ), kind


def clean() -> SAE:
    """Latent 0 is "starts with s", latent 1 + t is token t."""
    sae = SAE(WIDTH, 1 + N_TOKENS, Choice(2))
    for weights in (sae.W_enc, sae.W_dec):
        weights.data.copy_(torch.eye(WIDTH)[: 1 + N_TOKENS])
    sae.b_enc.data.fill_(-1.0)
    return sae


def absorbing(*silent: int) -> SAE:
    """The same, but latent 0 is silent on some tokens, whose own latents write "starts with s"
    too."""
    sae, axes = clean(), torch.eye(WIDTH)
    for token in silent:
        sae.W_enc.data[0, 1 + token] = -2.0
        sae.W_dec.data[1 + token] = torch.nn.functional.normalize(
            3 * axes[1 + token] + 4 * axes[0], dim=0
        )
        sae.W_enc.data[1 + token] *= 2
    return sae


def test_planted_absorption_is_found_with_its_rate_and_its_latent():
    (train, _), (test, kind) = tokens(3000, 0), tokens(3000, 1)
    found = absorption(absorbing(SILENT), train, test, "starts with s")
    assert found.main == [0] and found.probe_f1 > 0.99
    assert found.absorbers == {1 + SILENT: (kind == SILENT).sum()}
    assert found.rate.value == pytest.approx((kind == SILENT).sum() / (kind < WITH).sum())
    assert 0 < found.rate.low < found.rate.value < found.rate.high


def test_a_clean_sae_absorbs_nothing():
    (train, _), (test, _) = tokens(3000, 0), tokens(3000, 1)
    found = absorption(clean(), train, test, "starts with s")
    assert (found.rate.value, found.main, found.absorbers) == (
        0.0,
        [0],
        {},
    ) and found.main_f1 == 1.0


def test_a_silent_latent_alone_is_no_absorption():
    (train, _), (test, _) = tokens(3000, 0), tokens(3000, 1)
    sae = absorbing(SILENT)
    for mine, theirs in ((sae.W_dec, clean().W_dec), (sae.W_enc, clean().W_enc)):
        mine.data[1 + SILENT] = theirs.data[1 + SILENT]  # the property is lost, not absorbed
    assert absorption(sae, train, test, "starts with s").rate.value == 0.0


def test_a_latent_for_many_of_the_tokens_is_a_main_one_and_no_absorber():
    """Where latent 0 misses a fifth, the sparse probe takes the best of the others in: the property
    is split."""
    (train, _), (test, _) = tokens(3000, 0), tokens(3000, 1)
    sae = absorbing(*range(6))
    sae.W_enc.data[1] = sae.W_enc.data[1:7].sum(0)  # one latent for all six
    sae.W_enc.data[2:7] = 0
    sae.W_dec.data[1] = torch.nn.functional.normalize(
        torch.eye(WIDTH)[0] + torch.eye(WIDTH)[1:7].mean(0), dim=0
    )
    found = absorption(sae, train, test, "starts with s")
    assert found.main == [0, 1] and found.rate.value == 0.0


def test_an_untrained_sae_needs_several_latents_for_what_one_should_say():
    (train, _), (test, _) = tokens(3000, 0), tokens(3000, 1)
    found = absorption(controls.random_init(clean(), seed=2, l0=2), train, test, "starts with s")
    assert len(found.main) > 2 and found.main_f1 < 1.0


def test_a_property_that_is_not_there_has_no_rate():
    (train, _), (test, _) = tokens(2000, 0), tokens(2000, 1)
    labels = [{"coin": np.random.default_rng(seed).random(2000) < 0.5} for seed in (0, 1)]
    sae = controls.random_init(clean(), seed=2, l0=2)
    found = absorption(
        sae, train._replace(labels=labels[0]), test._replace(labels=labels[1]), "coin"
    )
    assert found.rate.value is None and found.probe_f1 < 0.6


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_planted_share_is_found(share: float):
    """Of 100 kinds of token that start with s, latent 0 is silent on the first part. One kind more
    or less is what the sparse probe may take for a latent of the property."""
    n_with = 100
    axes = torch.eye(1 + 2 * n_with)
    sae = SAE(len(axes), len(axes), Choice(2))
    for weights in (sae.W_enc, sae.W_dec):
        weights.data.copy_(axes)
    sae.b_enc.data.fill_(-1.0)
    for kind in range(round(share * n_with)):
        sae.W_enc.data[0, 1 + kind] = -2.0
        sae.W_enc.data[1 + kind] *= 2
        sae.W_dec.data[1 + kind] = (3 * axes[1 + kind] + 4 * axes[0]) / 5
    parts = []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        kind_N = rng.integers(0, 2 * n_with, 4000)
        x_ND = 0.05 * rng.standard_normal((len(kind_N), len(axes)))
        x_ND[np.arange(len(kind_N)), 1 + kind_N] += 3
        x_ND[kind_N < n_with, 0] += 4
        known = {"s": kind_N < n_with}
        parts.append(Labelled(torch.from_numpy(x_ND).float(), known, np.arange(len(kind_N))))
    found = absorption(sae, parts[0], parts[1], "s")
    # The sparse probe may take a silent kind's own latent for the property's: that kind is not
    # absorbed. Which kinds are is known by hand.
    planted_N = (kind_N < round(share * n_with)) & ~np.isin(kind_N + 1, found.main)
    planted_N = planted_N[kind_N < n_with]
    assert found.rate.value == found.fraction.value == planted_N.mean()
    assert abs(found.rate.value - share) < 0.03 and len(found.main) <= 2
    assert np.array_equal(found.absorbed, planted_N) and found.probe_f1 > 0.99


def test_the_fraction_by_hand():
    """Latent 0 is the main one, latent 5 points elsewhere; the whole is 4."""
    added_NF = np.array(
        [
            [2.0, 2, 0, 0, 0, 9],  # half each
            [4.0, 2, 0, 0, 0, 0],  # the main latent says all
            [0.0, 1, 0, 0, 0, 0],  # too little
            [0.0, 2, 0, 0, 0, 0],  # all of it by another
            [1.0, 5, 0, 0, 0, 0],  # no more than the main one lacks
            [0.8, 1, 1, 1, 1, 0],  # three at most
        ]
    )
    cosine_F = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.05])
    sparse = scipy.sparse.csr_array(added_NF)
    added = absorbing_module._Added(sparse, cosine_F, [0], added_NF[:, 0] == 0, np.full(6, 4.0))
    expected = [0.5, 0, 0, 1, 0.75, 3 / 3.8]
    assert absorbing_module._fractions(added) == pytest.approx(expected)


def test_a_latent_for_what_has_not_the_property_is_not_its_latent():
    """One latent fires strongly on every token without the property, a weaker one on those with
    it."""
    sae = SAE(WIDTH, 2, Choice(2))
    sae.W_enc.data.zero_()
    sae.W_enc.data[0, 0], sae.W_enc.data[1, 0] = 1.0, -3.0
    sae.b_enc.data.copy_(torch.tensor([-1.0, 6.0]))
    train, test = tokens(2000, 0)[0], tokens(2000, 1)[0]
    assert absorption(sae, train, test, "starts with s").main == [0]
