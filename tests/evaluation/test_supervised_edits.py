"""Greedy edits: hand-worked steps, the exact end, brute force for one change, magnitudes that add
up to 1."""

from itertools import pairwise

import torch

from saelab.evaluation.supervised.dictionary import Features
from saelab.evaluation.supervised.edits import greedy

EYE = torch.eye(4)


def features(*codes: list[float], rows: torch.Tensor = EYE) -> Features:
    """Features of these codes, without a bias."""
    return Features(torch.tensor(codes), rows, torch.zeros(rows.shape[1]))


def random_pair(n_features: int = 40, width: int = 12) -> tuple[Features, Features]:
    """Two overlapping sparse codes of 5 prompts over non-orthogonal rows."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(n_features, width, generator=draw), dim=1)
    codes = [
        torch.rand(5, n_features, generator=draw)
        * (torch.rand(5, n_features, generator=draw) < 0.2)
        for _ in range(2)
    ]
    codes[1] = torch.where(torch.rand(5, n_features, generator=draw) < 0.3, codes[0], codes[1])
    bias = torch.randn(width, generator=draw)
    return Features(codes[0], rows, bias), Features(codes[1], rows, bias)


def test_by_hand():
    source, target = features([3.0, 1.0, 0.0, 2.0]), features([0.0, 1.0, 2.0, 1.5])
    acts, wanted = source.reconstruction(), target.reconstruction()
    one, two, all_ = (greedy(acts, source, target, wanted, k) for k in (1, 2, 9))
    assert one.edited.tolist() == [[0.0, 1.0, 0.0, 2.0]] and one.changed.tolist() == [1]
    assert two.edited.tolist() == [[0.0, 1.0, 2.0, 2.0]] and two.changed.tolist() == [2]
    assert all_.changed.tolist() == [3]
    torch.testing.assert_close(one.magnitude, torch.tensor([9 / 14]))
    torch.testing.assert_close(two.magnitude, one.magnitude)
    torch.testing.assert_close(all_.magnitude, torch.tensor([(9 + 2 * 0.5) / 14]))


def test_with_all_changes_a_perfect_dictionary_arrives_exactly():
    source, target = random_pair()
    edit = greedy(source.reconstruction(), source, target, target.reconstruction(), 80)
    torch.testing.assert_close(edit.edited, target.reconstruction(), atol=1e-5, rtol=1e-5)
    assert edit.changed.tolist() == (source.codes != target.codes).sum(1).tolist()


def test_one_change_is_the_best_one():
    source, target = random_pair()
    wanted = target.reconstruction()
    edit = greedy(source.reconstruction(), source, target, wanted, 1)
    steps = (target.codes - source.codes)[:, :, None] * source.rows
    reached = (source.reconstruction()[:, None] + steps - wanted[:, None]).norm(dim=2).min(1).values
    torch.testing.assert_close((edit.edited - wanted).norm(dim=1), reached, atol=1e-5, rtol=1e-5)


def test_an_edit_never_leads_away_and_more_changes_never_hurt():
    source, target = random_pair()
    acts = source.reconstruction() + 0.3
    wanted = target.reconstruction() - 0.3
    distances = [(acts - wanted).norm(dim=1)]
    distances += [
        (greedy(acts, source, target, wanted, k).edited - wanted).norm(dim=1)
        for k in (1, 2, 4, 8, 16)
    ]
    assert all(bool((after <= before + 1e-6).all()) for before, after in pairwise(distances))


def test_removing_everything_weighs_one_and_nothing_weighs_none():
    source, _ = random_pair()
    nothing = source._replace(codes=torch.zeros_like(source.codes))
    away = greedy(source.reconstruction(), source, nothing, nothing.reconstruction(), 40)
    torch.testing.assert_close(away.magnitude, torch.ones(5), atol=1e-5, rtol=0)
    still = greedy(source.reconstruction(), source, source, source.reconstruction() + 1, 40)
    assert still.magnitude.tolist() == [0] * 5 and still.changed.tolist() == [0] * 5
