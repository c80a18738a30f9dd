"""What single features tell and do, beside the difference in means: planted directions, and the
twins of other directions, of labels that are dealt out anew, and of directions turned round."""

from pathlib import Path

import numpy as np
import pytest
import torch

from saelab import SAE, Choice
from saelab.activations import Cache
from saelab.evaluation.concepts import Positions
from training.reproduce import Settings, data
from training.reproduce.compare import HOOK
from training.reproduce.single_features import Tasks
from training.reproduce.steering import Kinds

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


def tasks(*, shuffled: bool = False) -> Tasks:
    """Without a model: nothing is steered."""
    both = (positions(seed, shuffled=shuffled) for seed in (0, 1))
    return Tasks(*both, Unmoved(torch.zeros(2, 1), torch.zeros(0, 1), torch.zeros(2, 0)), None, 1.0)


class Unmoved(Kinds):
    """Says which way it is pushed along the axes that concepts lie on."""

    def gained(self, rows_KD: torch.Tensor, *given: object) -> float:
        return float(rows_KD[0, 0] - 10 * rows_KD[1, 1])


def test_features_along_concepts_tell_them_and_so_does_the_difference_in_means():
    measured = tasks().of_saes([along(0, 1), along(5, 6)])
    told, not_told = measured["ap"]
    assert measured["steer"][0] == 1 + 10, "each concept's feature, on the side that tells it"
    assert told > 0.98 and tasks().of_means()["ap"] > 0.98
    assert not_told == pytest.approx(0.2, abs=0.08), "what a random order gets"


def test_labels_dealt_out_anew_are_told_by_nothing():
    mixed = tasks(shuffled=True)
    assert mixed.of_saes([along(0, 1)])["ap"][0] < 0.3 and mixed.of_means()["ap"] < 0.3


def test_the_difference_in_means_steers_towards_its_kind_and_not_when_turned_round(
    bundled: str, tmp_path: Path
):
    settings = Settings(quick=True, work=tmp_path)
    cache = Cache(data.cache(settings, "stdlib", [HOOK], 30_000))
    made = Tasks.of(settings, cache)
    kinds, x_ND = made.kinds, made.train.x
    means_KD = torch.stack(
        [x_ND[on_N].mean(0) - x_ND[~on_N].mean(0) for on_N in torch.from_numpy(made.train.labels).T]
    )
    towards, away, nowhere = (
        kinds.gained(sign * means_KD, made.model, HOOK, norm)
        for sign, norm in ((1, made.norm), (-1, made.norm), (1, 0.0))
    )
    # Whatever is added takes from predictions that were sure, and so lies nearer to any mean of
    # many: turned round it says how much of the gain that is.
    assert towards - away > 0.3 and nowhere == pytest.approx(0, abs=1e-5)
    present = kinds.follows.sum(1) > 0
    torch.testing.assert_close(kinds.follows[present].sum(1), torch.ones(int(present.sum())))
    assert len(kinds.at) == made.train.labels.shape[1] and int(kinds.at.min()) > 0
