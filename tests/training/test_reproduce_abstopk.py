"""Concepts that single features tell, beside the difference in means: planted directions, and the
twins of other directions and of labels that are dealt out anew."""

import numpy as np
import pytest
import torch

from saelab import SAE, Choice
from saelab.evaluation.concepts import Positions
from training.reproduce.abstopk import Probe

WIDTH, N = 8, 600


def positions(seed: int, *, shuffled: bool = False) -> Positions:
    """Concept 0 lies along the first axis, concept 1 against the second."""
    rng = np.random.default_rng(seed)
    labels_NC = rng.random((N, 2)) < 0.2
    x_ND = rng.standard_normal((N, WIDTH))
    x_ND[:, :2] += labels_NC * [8.0, -8.0]
    if shuffled:
        labels_NC = rng.permutation(labels_NC)
    owners_N = 1000 * seed + np.arange(N) // 20
    return Positions(torch.from_numpy(x_ND).float(), labels_NC, owners_N, ["a", "b"])


def along(*axes: int) -> SAE:
    """A signed dictionary of these axes."""
    sae = SAE(WIDTH, len(axes), Choice(len(axes), signed=True))
    sae.W_enc.data = torch.eye(WIDTH)[list(axes)]
    sae.W_dec.data = sae.W_enc.data.clone()
    return sae


def test_features_along_concepts_tell_them_and_so_does_the_difference_in_means():
    probe = Probe(positions(0), positions(1))
    told, not_told = probe.of_saes([along(0, 1), along(5, 6)])
    assert told > 0.98 and probe.of_means() > 0.98
    assert not_told == pytest.approx(0.2, abs=0.08), "what a random order gets"


def test_labels_dealt_out_anew_are_told_by_nothing():
    probe = Probe(positions(0, shuffled=True), positions(1, shuffled=True))
    assert probe.of_saes([along(0, 1)])[0] < 0.3 and probe.of_means() < 0.3
