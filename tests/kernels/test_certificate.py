"""The bounds are bounds and the certificate notices what they do not settle; weakened twins are
caught."""

import numpy as np
import pytest
import torch

from saelab import kernels
from saelab.kernels.cpu import backend, probe
from saelab.kernels.cpu.screen import screen, winners
from saelab.kernels.cpu.screen.screen import Problem
from saelab.sparsify import Choice
from tests.kernels import inputs, truth

SCREENS = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def narrow_tiles(monkeypatch):
    monkeypatch.setattr(screen, "_WIDEST", 64)


def problem_of(case: truth.Case, signed: bool = False, beta: float = 0.0) -> Problem:
    return Problem(case.x, case.W, case.b, signed, beta, *((case.grad, case.W_dec) if beta else ()))


def above_their_bounds(
    case: truth.Case, signed: bool, beta: float, dtype: torch.dtype, by_feature: bool = False
) -> int:
    """How many positive exact scores are not below what their key promises."""
    _, score = truth.scores(case, Choice(1, signed=signed, beta=beta))
    score = score.T if by_feature else score
    broken, shift = 0, screen.shift_of(dtype)
    for tile in screen.tiles(
        problem_of(case, signed, beta), dtype, by_feature=by_feature, strided=not by_feature
    ):
        features = tile.first + tile.step * np.arange(tile.n)
        keys = tile.keys[: tile.n, : score.shape[1]] if by_feature else tile.keys[:, : tile.n]
        exact = score[features] if by_feature else score[:, features]
        bounds = ((keys.astype(np.int64) + 1) << shift).astype(np.int32).view(np.float32)
        broken += int(((exact > 0) & ((keys <= 0) | (exact >= bounds))).sum())
    return broken


def weaken(monkeypatch, factor: float, columns: slice, of: str = "_round_x") -> None:
    """Scale some of the columns that make a product an upper bound."""
    original = getattr(screen, of)

    def weakened(name, tensor, *rest):
        rounded = original(name, tensor, *rest)
        width = tensor.shape[1]
        rounded.rows[:, width + columns.start : width + columns.stop] *= factor
        return rounded._replace(slack=rounded.slack * np.float32(factor))

    monkeypatch.setattr(screen, of, weakened)


@pytest.mark.parametrize("by_feature", [False, True])
@pytest.mark.parametrize("dtype", SCREENS)
@pytest.mark.parametrize(("signed", "beta"), [(False, 0.0), (True, 0.0), (False, 0.7), (True, 0.7)])
@pytest.mark.parametrize("name", sorted(inputs.MAKERS.keys() - {"huge"}))
def test_every_score_is_below_its_bound(name, signed, beta, dtype, by_feature):
    assert above_their_bounds(inputs.make(name), signed, beta, dtype, by_feature) == 0


def worst() -> truth.Case:
    """The largest rounding error there is, placed so that rounding the product down adds to it."""
    case = inputs.make("worst_rounding", B=2, F=40, D=128)
    case.x[:, -1], case.W[:, -1] = 0.2421875, 0.25
    return case


def test_the_worst_rounding_stays_below_its_bound_and_halved_bounds_are_caught(monkeypatch):
    assert above_their_bounds(worst(), False, 0.0, torch.bfloat16) == 0
    weaken(monkeypatch, 0.5, slice(0, 2))
    assert above_their_bounds(worst(), False, 0.0, torch.bfloat16) > 0


@pytest.mark.parametrize("signed", [False, True])
def test_a_bound_without_the_rounding_errors_is_caught(monkeypatch, signed):
    weaken(monkeypatch, 0.0, slice(0, 2))
    assert above_their_bounds(worst(), signed, 0.0, torch.bfloat16) > 0


def test_a_bound_without_the_rest_of_the_bias_is_caught(monkeypatch):
    case = inputs.make("large_bias")
    assert above_their_bounds(case, False, 0.0, torch.bfloat16) == 0
    held = truth.Case(torch.full((2, 1), -1000.0), torch.ones(40, 1), torch.full((40,), 1001.9))
    assert above_their_bounds(held, False, 0.0, torch.bfloat16) == 0
    weaken(monkeypatch, 0.0, slice(3, 4), "_round_w")
    assert above_their_bounds(held, False, 0.0, torch.bfloat16) > 0


@pytest.mark.parametrize("name", ["near_ties", "constant", "huge"])
def test_what_the_screen_cannot_settle_is_not_certified(name):
    case = inputs.make(name, F=1000)
    won = winners._screen_tokens(problem_of(case), 5, 30, torch.bfloat16, True)
    assert len(won.failed) > len(case.x) // 2


def test_what_the_screen_settles_is_certified():
    case = inputs.make("random")
    kernels.choose(case.x, case.W, case.b, Choice(5))
    backend.certified_fraction()
    with probe.screening(torch.bfloat16):
        kernels.choose(case.x, case.W, case.b, Choice(5))
    assert backend.certified_fraction() == 1
    case = inputs.make("huge")
    kernels.choose(case.x, case.W, case.b, Choice(5, "batch"))
    assert backend.certified_fraction() == 0


def objections(name: str) -> list[str]:
    case, choice = inputs.make(name, F=1000), Choice(5)
    with probe.screening(torch.bfloat16):
        return truth.objections(
            kernels.choose(case.x, case.W, case.b, choice), truth.pairs(case, choice)
        )


def test_choosing_without_a_certificate_is_caught(monkeypatch):
    original = winners.rescore

    def trusting(sides, starts, counts, thetas, *rest):
        return original(sides, starts, counts, np.zeros_like(thetas), *rest)

    assert not objections("near_ties")
    monkeypatch.setattr(winners, "rescore", trusting)
    assert objections("near_ties")


def test_a_full_list_that_does_not_raise_its_threshold_is_caught(monkeypatch):
    original = winners.collect

    def forgetful(keys, first, step, starts, keeps, factor, ranks, counts, thetas, lists):
        before = thetas.copy()
        original(
            keys, first, step, starts, keeps, factor, np.zeros_like(ranks), counts, thetas, lists
        )
        thetas[:] = before

    monkeypatch.setattr(winners, "collect", forgetful)
    assert objections("near_ties")


def test_the_second_screen_settles_what_bfloat16_cannot(monkeypatch):
    calls = []
    monkeypatch.setattr(winners, "exhaust", lambda *_: calls.append("exhaust"))
    case = inputs.make("near_ties", B=40, F=1000)
    case.W.add_(1e-3 * torch.randn(1000, 37, generator=torch.Generator().manual_seed(0)))
    with probe.screening(torch.bfloat16):
        code = kernels.choose(case.x, case.W, case.b, Choice(5))
    assert not truth.objections(code, truth.pairs(case, Choice(5)))
    assert not calls


def test_a_wrong_prediction_of_the_batch_threshold_costs_time_only(monkeypatch):
    from saelab.kernels.cpu.screen import pool

    monkeypatch.setattr(pool, "_SPARES", (0.1, 0.2))
    case, choice = inputs.make("structured", B=60), Choice(5, "batch")
    assert not truth.objections(
        kernels.choose(case.x, case.W, case.b, choice), truth.pairs(case, choice)
    )


def test_a_batch_threshold_that_was_too_high_is_lowered_just_enough(monkeypatch):
    from saelab.kernels.cpu.screen import pool

    calls, gather = [], pool._gather
    monkeypatch.setattr(screen, "_WIDEST", 512)  # one tile, which sees every pair
    monkeypatch.setattr(
        pool, "_SPARES", (1.02, 1e-9)
    )  # the second would find next to nothing by itself
    monkeypatch.setattr(pool, "_gather", lambda *rest: calls.append(1) or gather(*rest))
    monkeypatch.setattr(
        pool, "_exhaust", lambda *_: pytest.fail("the second threshold did not certify")
    )
    case, choice = inputs.make("random", B=60), Choice(5, "batch")
    with probe.screening(torch.bfloat16):
        assert not truth.objections(
            kernels.choose(case.x, case.W, case.b, choice), truth.pairs(case, choice)
        )
    assert len(calls) == 2
