"""Choosing on the CPU equals float64's choice, whatever the budget, the score, the input and the
screening dtype. `test_backends` holds every backend to it on tiny inputs."""

import pytest
import torch

from saelab import Code, kernels
from saelab.kernels.cpu import probe
from saelab.kernels.cpu.screen import screen
from saelab.sparsify import Choice, Threshold
from tests.kernels import inputs, truth

SCREENS = [torch.float32, torch.bfloat16]
SCORES = {
    "plain": {},
    "signed": {"signed": True},
    "boosted": {"beta": 0.7},
    "both": {"signed": True, "beta": 0.7},
}


@pytest.fixture(autouse=True)
def narrow_tiles(monkeypatch):
    """Tiles of 64 features, so that small inputs have several."""
    monkeypatch.setattr(screen, "_WIDEST", 64)


def choose(case: truth.Case, sparsify, dtype=torch.float32, **options) -> Code:
    with kernels.backend("cpu"), probe.screening(dtype):
        grad, W_dec = (case.grad, case.W_dec) if getattr(sparsify, "beta", 0) else (None, None)
        return kernels.choose(case.x, case.W, case.b, sparsify, grad=grad, W_dec=W_dec, **options)


def objections(case: truth.Case, sparsify, dtype, **options) -> list[str]:
    return truth.objections(
        choose(case, sparsify, dtype, **options), truth.pairs(case, sparsify, **options)
    )


def test_the_worked_examples_of_the_papers_come_out():
    x = torch.eye(3)
    W = torch.tensor(
        [[9.0, 8, 0.4], [1, 7, 0.3], [0.5, 6, 2], [0.2, 0.1, 0.05]]
    )  # W[f, t] is token t's score of feature f
    case = truth.Case(x, W, torch.zeros(4))
    kept = {
        "token": [(0, 0), (1, 0), (2, 2)],
        "batch": [(0, 0), (1, 0), (1, 1)],
        "feature": [(0, 0), (0, 3), (1, 1), (1, 2)],
    }
    for over, expected in kept.items():
        budget = torch.ones(4, dtype=torch.int64) if over == "feature" else None
        code = choose(case, Choice(1, over), budget=budget)
        assert list(zip(code.tokens.tolist(), code.features.tolist(), strict=True)) == expected
        assert code.values.tolist() == [W[f, t].item() for t, f in expected]


def test_the_gradient_decides_which_pairs_are_kept_but_not_their_values():
    W, W_dec = torch.tensor([[3.0], [2], [1]]), torch.tensor([[0.0], [1], [5]])
    case = truth.Case(torch.ones(1, 1), W, torch.zeros(3), -torch.ones(1, 1), W_dec)
    boosted = choose(case, Choice(1, beta=1.0))
    assert (boosted.features.item(), boosted.values.item()) == (2, 1.0)
    assert choose(case, Choice(1)).features.item() == 0


@pytest.mark.parametrize("dtype", SCREENS)
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("over", ["token", "batch", "feature"])
@pytest.mark.parametrize("name", inputs.MAKERS)
def test_every_input_is_chosen_from_as_float64_does(name, over, score, dtype):
    assert not objections(inputs.make(name), Choice(5, over, **SCORES[score]), dtype)


@pytest.mark.parametrize("dtype", SCREENS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", inputs.MAKERS)
def test_every_pair_above_its_level_is_reported(name, signed, dtype):
    case = inputs.make(name)
    unit = float(case.W.double().norm(dim=1).mean() * case.x.double().norm(dim=1).mean())
    levels = unit * 0.2 * torch.rand(len(case.W), generator=torch.Generator().manual_seed(0))
    window = unit * 0.1
    for sparsify in (
        Threshold(0.3 * unit, signed),
        Threshold(0.0, signed),
        Threshold(0.0, signed, window),
    ):
        assert not objections(case, sparsify, dtype)
    assert not objections(case, Threshold(0.0, signed, window), dtype, level=levels)


@pytest.mark.parametrize("dtype", SCREENS)
@pytest.mark.parametrize(
    ("B", "F", "D", "k"),
    [(1, 1, 1, 1), (1, 331, 37, 7), (3, 64, 64, 64), (33, 65, 1, 3), (5, 200, 129, 150)],
)
@pytest.mark.parametrize("over", ["token", "batch", "feature"])
def test_odd_shapes_are_chosen_from_as_float64_does(over, B, F, D, k, dtype):
    k = max(1, min(k, B * F // max(F, 1))) if over == "feature" else k
    assert not objections(inputs.make("random", B, F, D), Choice(k, over), dtype)


@pytest.mark.parametrize("dtype", SCREENS)
def test_a_feature_may_have_a_budget_of_its_own_or_none(dtype):
    case = inputs.make("structured", B=200)
    zipf = (200 / (1 + torch.arange(331))).long().clamp(0, 200)[torch.randperm(331)]
    assert (zipf == 0).any()
    assert not objections(case, Choice(5, "feature"), dtype, budget=zipf)


def test_ties_go_to_the_lowest_feature_and_a_twin_that_prefers_the_highest_is_caught():
    case, choice = inputs.make("duplicated"), Choice(5)
    right = truth.pairs(case, choice)
    flipped = choose(case._replace(W=case.W.flip(0)), choice)
    order = torch.sort(flipped.tokens * 331 + 330 - flipped.features).indices
    twin = Code(flipped.starts, (330 - flipped.features)[order], flipped.values[order], 331)
    assert not truth.objections(choose(case, choice), right)
    assert truth.objections(twin, right)


def test_the_checker_rejects_a_wrong_pair_a_wrong_value_and_a_wrong_order():
    case, choice = inputs.make("random"), Choice(5)
    right, code = truth.pairs(case, choice), choose(case, choice)
    off = code.with_values(code.values * (1 + 2.0**-21))
    swapped = Code(code.starts, code.features.flip(0), code.values.flip(0), 331)
    assert not truth.objections(code, right)
    assert truth.objections(off, right) == [f"{len(right)} values are off, first {min(right)}"]
    assert truth.objections(swapped, right)
    assert truth.objections(choose(case, Choice(4)), right)


@pytest.mark.parametrize(
    "sparsify", [Choice(5), Choice(5, signed=True), Choice(5, beta=0.5), Threshold(0.3)]
)
def test_a_token_alone_in_a_batch_and_shuffled_has_the_same_bits(sparsify):
    case = inputs.make("structured", B=100)
    whole = choose(case, sparsify, torch.bfloat16).to_dense()
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    moved = case._replace(x=case.x[order], grad=case.grad[order])
    assert torch.equal(choose(moved, sparsify, torch.bfloat16).to_dense(), whole[order])
    for size in (1, 3, 33):
        part = case._replace(x=case.x[:size].clone(), grad=case.grad[:size].clone())
        assert torch.equal(choose(part, sparsify, torch.float32).to_dense(), whole[:size])


def test_a_value_is_the_same_bits_under_every_budget():
    case = inputs.make("structured", B=100)
    levels = choose(case, Threshold(0.01)).to_dense()
    for over in ("token", "batch", "feature"):
        chosen = choose(case, Choice(5, over), torch.bfloat16).to_dense()
        assert torch.equal(chosen, torch.where(chosen > 0, levels.where(levels > 0, chosen), 0))


@pytest.mark.parametrize(
    "sparsify", [Choice(5), Choice(5, "batch"), Choice(5, "feature"), Threshold(0.1)]
)
def test_one_thread_or_two_give_the_same_bits(sparsify):
    case = inputs.make("structured", B=100)
    before = torch.get_num_threads()
    codes = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            codes.append(choose(case, sparsify, torch.bfloat16))
    finally:
        torch.set_num_threads(before)
    assert all(
        torch.equal(getattr(codes[0], part), getattr(codes[1], part))
        for part in ("starts", "features", "values")
    )


def test_many_tokens_are_chosen_for_in_pieces(monkeypatch):
    from saelab.kernels.cpu import backend
    from saelab.kernels.cpu.screen import pool

    monkeypatch.setattr(backend, "_ROWS", 16)
    monkeypatch.setattr(pool, "_ROWS", 16)
    case = inputs.make("structured", B=50)
    for sparsify in (Choice(5), Choice(5, "batch"), Choice(5, beta=0.5), Threshold(0.1)):
        assert not objections(case, sparsify, torch.bfloat16)
