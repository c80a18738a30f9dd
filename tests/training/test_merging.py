"""Which pairs ranks choose together, against one process on the same tokens: processes that talk
over gloo.

Shapes: B tokens, F features, D width.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from saelab import kernels, ranks
from saelab.code import Code
from saelab.sparsify import Choice, Sparsify, Threshold
from tests import several
from training import collectives, merging
from training.replicated import Replicated
from training.sharded import Sharded

B, F, D = 16, 45, 6  # F is no multiple of 2 or 4
CHOICES = [
    Choice(8),
    Choice(30),  # more than a shard has
    Choice(8, signed=True, beta=0.7),
    Choice(8, "batch"),
    Choice(8, "batch", signed=True, beta=0.7),
    Choice(8, "feature"),
    Threshold(1.0),
]


def whole_numbers() -> dict[str, Tensor]:
    """Sums that are exact in any order; every feature thrice, in different shards; a third of the
    tokens has fewer than 8 positive features, one has none."""
    draw = torch.Generator().manual_seed(0)
    rows_GD = torch.randint(-3, 4, (F // 3, D), generator=draw).float()
    x_BD = torch.randint(-3, 4, (B, D), generator=draw).float()
    x_BD[::3], x_BD[3] = 0, 0
    x_BD[::3, 0] = 1
    b_F = torch.full((F,), -2.0)
    grad_BD = torch.randint(-2, 3, (B, D), generator=draw).float()
    return {"x": x_BD, "W": rows_GD.repeat(3, 1), "b": b_F, "grad": grad_BD}


def random_numbers() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    shapes = {"x": (B, D), "W": (F, D), "b": (F,), "grad": (B, D)}
    return {name: torch.randn(*shape, generator=draw) for name, shape in shapes.items()}


def chosen(choose: Callable, case: dict[str, Tensor], sparsify: Sparsify, part: slice) -> Code:
    """What a layout chooses of some features of a case."""
    boost = {"grad": case["grad"], "W_dec": case["W"][part]}
    return choose(case["x"], case["W"][part], case["b"][part], sparsify, **boost)


def parts_of_features(case: dict[str, Tensor], sparsify: Sparsify) -> tuple[Tensor, ...]:
    """On one rank: (token, feature, value) of the pairs that it keeps of a sharded dictionary."""
    layout = Sharded(F)
    code = chosen(layout.choose, case, sparsify, layout.part)
    return code.tokens, code.features + layout.part.start, code.values


def parts_of_tokens(case: dict[str, Tensor], sparsify: Sparsify) -> tuple[Tensor, ...]:
    """The same of a replicated one."""
    n_mine = B // ranks.world()
    rows = slice(ranks.rank() * n_mine, (ranks.rank() + 1) * n_mine)
    mine = {**case, "x": case["x"][rows], "grad": case["grad"][rows]}
    code = chosen(Replicated().choose, mine, sparsify, slice(0, F))
    return code.tokens + rows.start, code.features, code.values


def pairs(parts: list[tuple[Tensor, ...]]) -> list[tuple]:
    """All ranks' pairs, in order of token and feature."""
    every = (zip(*(column.tolist() for column in part), strict=True) for part in parts)
    return sorted(pair for part in every for pair in part)


def right(case: dict[str, Tensor], sparsify: Sparsify) -> list[tuple]:
    """One process's."""
    code = chosen(kernels.choose, case, sparsify, slice(0, F))
    return pairs([(code.tokens, code.features, code.values)])


def differing(
    n: int, work: Callable, case: dict[str, Tensor], choices: list, *patch: Any
) -> list[Sparsify]:
    """The sparsifiers whose pairs on n ranks, with something replaced there, are not those of one
    process."""

    def every() -> list[tuple[Tensor, ...]]:
        with ranks.joined():
            return [work(case, sparsify) for sparsify in choices]

    parts = several.results(n, several.patched(every, *patch) if patch else every)
    merged = [pairs(list(of_all)) for of_all in zip(*parts, strict=True)]
    return [s for s, mine in zip(choices, merged, strict=True) if mine != right(case, s)]


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("case", [whole_numbers, random_numbers])
def test_shards_keep_the_pairs_of_one_process(case: Callable, n: int):
    assert differing(n, parts_of_features, case(), CHOICES) == []


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("case", [whole_numbers, random_numbers])
def test_ranks_that_share_out_tokens_keep_the_pairs_of_one_process(case: Callable, n: int):
    choices = [choice for choice in CHOICES if getattr(choice, "over", "") != "feature"]
    assert differing(n, parts_of_tokens, case(), choices) == []


def test_the_case_has_ties_across_shards_and_tokens_with_few_positive_features():
    case = whole_numbers()
    pre_BF = case["x"] @ case["W"].T + case["b"]
    positive_B = (pre_BF > 0).sum(1)
    assert (positive_B < 8).sum() >= 3 and (positive_B > 8).sum() >= 3
    eighth_B = pre_BF.relu().sort(1, descending=True).values[:, 7]
    ties_B = (pre_BF == eighth_B[:, None]).sum(1)[eighth_B > 0]
    assert (ties_B > 1).any()


def to_the_highest_rank(score_BK: Tensor, k: int) -> Tensor:
    """A merge whose ties go to the rank that comes last."""
    swapped = collectives.swapped

    def flip(for_each: Tensor, what: str) -> Tensor:
        if what == "scores":
            return swapped(for_each, what).flip(0)
        return swapped(for_each.flip(0), what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collectives, "swapped", flip)
        return ORIGINAL(score_BK, k)


def of_this_rank(score_BK: Tensor, k: int) -> Tensor:
    """No merge: every rank keeps its own k best."""
    return torch.ones_like(score_BK, dtype=torch.bool)


ORIGINAL = merging.of_tokens


@pytest.mark.parametrize("twin", [to_the_highest_rank, of_this_rank])
def test_a_merge_that_is_not_one_processs_is_caught(twin: Callable):
    patch = (merging, "of_tokens", twin)
    assert differing(2, parts_of_features, whole_numbers(), [Choice(8)], *patch) == [Choice(8)]


def test_a_batchs_ties_given_to_another_token_are_caught():
    original = merging.of_batch

    def by_rank(*case: Any, by_token: bool) -> Tensor:
        return original(*case, by_token=not by_token)

    choice = Choice(8, "batch")
    patch = (merging, "of_batch", by_rank)
    assert differing(2, parts_of_features, whole_numbers(), [choice], *patch) == [choice]
