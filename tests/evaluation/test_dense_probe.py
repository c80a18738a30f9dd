"""A probe on all dimensions finds what is linear there; average precision is scikit-learn's."""

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from saelab.evaluation.dense_probe import average_precisions, fitted


def test_average_precision_is_scikit_learn_s_ties_and_weights_included():
    rng = np.random.default_rng(0)
    scores_PC = rng.integers(0, 6, (60, 3)).astype(float)  # many are equal
    labels_PC, weights_P = rng.random((60, 3)) < 0.3, rng.integers(0, 3, 60)
    theirs = [
        average_precision_score(labels_PC[:, c], scores_PC[:, c], sample_weight=weights_P)
        for c in range(3)
    ]
    assert np.allclose(average_precisions(scores_PC, labels_PC, weights_P), theirs)
    assert np.isnan(average_precisions(scores_PC, np.zeros((60, 3), bool))).all()


def test_a_linear_concept_is_found_and_a_shuffled_one_is_not():
    torch.manual_seed(0)
    x_PD = torch.randn(600, 5)
    labels_PC = (x_PD @ torch.randn(5, 2) > 1).numpy()
    found = fitted(x_PD[:400], labels_PC[:400])(x_PD[400:])
    assert average_precisions(found, labels_PC[400:]).min() > 0.97
    shuffled = fitted(x_PD[:400], labels_PC[np.random.default_rng(0).permutation(400)])
    assert average_precisions(shuffled(x_PD[400:]), labels_PC[400:]).max() < 0.6
