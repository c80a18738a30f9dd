"""How often features fire together, on more tokens than a square of int32 holds."""

import numpy as np
import torch

from saelab.code import Code
from saelab.features import cofiring


def test_features_that_fire_everywhere_are_together_as_often_as_by_chance():
    n_tokens = 60_000  # whose square is above 2^31
    features = torch.arange(2).repeat(n_tokens)
    code = Code(torch.arange(n_tokens + 1) * 2, features, torch.ones(2 * n_tokens), 2)
    sample = cofiring.Sample(2)
    sample.add(code, np.ones((60, 1000), bool), 0)
    ((records, _),) = sample.strongest()
    assert records["both"].tolist() == [n_tokens] * 2 and records["jaccard"].tolist() == [1, 1]
    assert np.abs(records["pmi"]).max() < 1e-6
