"""What holds of the Triton backend alone: interpreted on every machine, natively where there is a
GPU. Shapes are tiny."""

import inspect
import tempfile
from pathlib import Path

import pytest
import torch

from tests.kernels import backends, inputs, truth

pytest.importorskip("triton")

from saelab import kernels
from saelab.kernels import autograd
from saelab.kernels.triton import choose as choose_
from saelab.kernels.triton import exact as exact_
from saelab.kernels.triton import launch, loops, pool, screen, segments
from saelab.sparsify import Choice

DEVICE = backends.device("triton")


@pytest.fixture(autouse=True)
def narrow_tiles(monkeypatch):
    monkeypatch.setattr(screen, "_ENTRIES", 512)


def wrong(case: str, sparsify, F: int = 80, B: int = 4) -> bool:
    """Whether another code is chosen than float64's."""
    made = inputs.make(case, B=B, F=F, D=6)
    code = backends.choose("triton", made, sparsify)
    return bool(truth.objections(code, truth.pairs(made, sparsify)))


def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first lists say is taken for certified."""
    compared = choose_._compared
    sure = lambda w: w._replace(certified=torch.ones_like(w.certified))  # noqa: E731
    monkeypatch.setattr(choose_, "_compared", lambda *args: sure(compared(*args)))


def lists_that_drop_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that fills drops candidates, and theta stays where it was."""
    lists = choose_.lists
    still = lambda found: found._replace(thetas=torch.zeros_like(found.thetas))  # noqa: E731
    monkeypatch.setattr(choose_, "lists", lambda *args: still(lists(*args)))


def bounds_without_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """What rounding and summing lose is not added."""
    edited(monkeypatch, "select", "bound = size + lost", "bound = size + 0.0 * lost")


def ties_that_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    """A score is beaten by its equal: >= for >."""
    beats = "(theirs[None, :] > score[:, None])"
    edited(monkeypatch, "settle", beats, beats.replace(">", ">="))


def ties_to_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    lower = "== score[:, None]) & (rival[None, :] < item"
    edited(monkeypatch, "settle", lower, lower.replace("<", ">"))


def edited(monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str) -> None:
    """A program with an expression replaced, wherever Triton runs it."""
    home = exact_ if hasattr(exact_, name) else loops
    source = inspect.getsource(getattr(home, name).fn)
    assert source.count(old) == 1
    path = Path(tempfile.mkdtemp()) / "twin.py"
    path.write_text(source.replace(old, new))
    scope = dict(vars(home))
    exec(compile(path.read_text(), str(path), "exec"), scope)
    monkeypatch.setattr(home, name, scope[name])


@pytest.mark.parametrize(
    ("weaken", "case", "B"),
    [
        (trusted, "constant", 4),
        (lists_that_drop_in_silence, "constant", 4),
        (bounds_without_margin, "large_bias", 32),
        (ties_that_lose, "duplicated", 4),
        (ties_to_the_highest, "duplicated", 4),
    ],
)
def test_what_weakens_choosing_is_caught(monkeypatch: pytest.MonkeyPatch, weaken, case, B):
    # Lists of no more than the budget, so that a wrong order by bound is a wrong choice.
    monkeypatch.setattr(choose_, "rungs", lambda keep, n_items: [3, n_items])
    assert not wrong(case, Choice(3), B=B)
    weaken(monkeypatch)
    assert wrong(case, Choice(3), B=B)


def test_a_sample_predicts_the_threshold_and_hardly_any_list_fills(monkeypatch):
    made = inputs.make("structured", B=4, F=320, D=6)
    asked = []
    lists = choose_.lists
    monkeypatch.setattr(choose_, "lists", lambda *a: asked.append(lists(*a)) or asked[-1])
    code = backends.choose("triton", made, Choice(3))
    assert not truth.objections(code, truth.pairs(made, Choice(3)))
    assert len(asked) == 1 and (asked[0].thetas > 0).all() and (asked[0].counts <= 19).all()


@pytest.mark.parametrize("over", ["batch", "feature"])
def test_heavy_tokens_are_done_again_together(monkeypatch, over):
    made = inputs.make("random", B=4, F=400, D=6)
    made.x[1] *= 1000
    asked = []
    monkeypatch.setattr(pool, "_BATCH", (2, 0))
    home = pool if over == "batch" else choose_
    lists = home.lists
    monkeypatch.setattr(home, "lists", lambda *a: asked.append(len(a[1])) or lists(*a))
    budget = None if over == "batch" else torch.arange(400) % 2 * (torch.arange(400) % 5 > 1)
    options = {} if budget is None else {"budget": budget}
    code = backends.choose("triton", made, Choice(25, over), **options)
    assert not truth.objections(code, truth.pairs(made, Choice(25, over), **options))
    assert asked == [4, 1] if over == "batch" else [int((budget > 0).sum())]


def test_a_code_has_the_same_bits_alone_shuffled_and_after_longer_lists(monkeypatch):
    made = inputs.make("structured", B=6, F=80, D=6)
    whole = backends.choose("triton", made, Choice(3)).to_dense()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = backends.choose("triton", made._replace(x=made.x[order]), Choice(3)).to_dense()
    assert torch.equal(moved, whole[order])
    alone = backends.choose("triton", made._replace(x=made.x[2:3].clone()), Choice(3))
    assert torch.equal(alone.to_dense(), whole[2:3])
    lists = choose_.lists

    def doubtful(screen_, keep_Q, most, *more):
        found = lists(screen_, keep_Q, most, *more)
        return found if most == 80 else found._replace(thetas=found.thetas + 1e9)

    monkeypatch.setattr(choose_, "lists", doubtful)
    assert torch.equal(backends.choose("triton", made, Choice(3)).to_dense(), whole)


def test_the_card_is_asked_whether_it_adds_up_in_float32(monkeypatch):

    here = torch.device(DEVICE)
    launch.screen_dtype.cache_clear()
    assert launch.screen_dtype(here) == torch.float16
    true = launch.product

    def short(q, i, out):  # where small terms vanish beside the first
        return true(q[:, :1], i[:, :1], out)

    with monkeypatch.context() as patch:
        patch.setattr(launch, "product", short)
        launch.screen_dtype.cache_clear()
        assert launch.screen_dtype(here) == torch.float32
    assert not wrong("near_ties", Choice(3))
    launch.screen_dtype.cache_clear()


def gradients(name: str, dtype: torch.dtype) -> list[torch.Tensor]:
    case = inputs.make("structured", B=4, F=40, D=6)
    x, W_enc, b_enc, W_dec = (
        tensor.to(dtype).requires_grad_()
        for tensor in backends.there("triton", case.x, case.W, case.b, case.W_dec)
    )
    with kernels.backend(name):
        code = kernels.choose(x.detach(), W_enc.detach(), b_enc.detach(), Choice(3, "batch"))
        x_hat = autograd.decode(autograd.encode(code, x, None, W_enc, b_enc), W_dec)
        return [
            x_hat.detach(),
            *torch.autograd.grad((x_hat - 1).square().sum(), [x, W_enc, b_enc, W_dec]),
        ]


def test_gradients_are_as_close_to_float64_as_plain_torch():
    runs = (
        gradients("triton", torch.float32),
        gradients("reference", torch.float32),
        gradients("reference", torch.float64),
    )
    for ours, torchs, exact in zip(*runs, strict=True):
        errors = [float((t - exact).double().square().mean().sqrt()) for t in (ours, torchs)]
        assert errors[0] <= 2 * errors[1] + 1e-12
    assert all(map(torch.equal, runs[0], gradients("triton", torch.float32)))


def test_fired_features_are_counted():
    code = backends.choose("triton", inputs.make("few_positive", B=4, F=40, D=6), Choice(3))
    with kernels.backend("triton"):
        sums, fired = kernels.column_sums(
            kernels.Code(*backends.there("triton", code.starts, code.features, code.values), 40)
        )
    assert torch.equal(fired.cpu(), (code.to_dense() != 0).sum(0))
    torch.testing.assert_close(sums.cpu(), code.to_dense().sum(0))


def test_long_segments_are_added_up_in_pieces_in_one_order(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    starts = torch.tensor([0, 0, 5, 25, 26])
    rows = torch.randint(0, 7, (26,), generator=generator)
    values, matrix = torch.randn(26, generator=generator), torch.randn(7, 5, generator=generator)
    there = [t.to(DEVICE) for t in (starts, rows, values, matrix)]
    whole = segments.sums(*there)
    monkeypatch.setattr(segments, "_LONGEST", 3)
    split = segments.sums(*there)
    exact = torch.zeros(4, 5, dtype=torch.float64)
    segment = torch.searchsorted(starts, torch.arange(26), right=True) - 1
    exact.index_add_(0, segment, values[:, None].double() * matrix[rows].double())
    for ours in (whole, split):
        torch.testing.assert_close(ours.cpu().double(), exact, rtol=1e-6, atol=1e-6)
    assert torch.equal(split, segments.sums(*there)) and not torch.equal(split, whole)
    assert segments.pieces(there[0], 26).starts.tolist() == [0, 0, 2, 9, 9]
    monkeypatch.setattr(segments, "piece_sums", lambda *a: torch.zeros(20, 5, device=DEVICE))
    lost = segments.sums(*there)
    assert not torch.allclose(lost.cpu().double(), exact, atol=1e-3)


def test_what_the_user_allows_of_products_is_set_aside_and_put_back():
    flags = torch.backends.cuda.matmul
    names = ("allow_fp16_reduced_precision_reduction", "fp32_precision")
    before = [getattr(flags, name) for name in names]
    try:
        for name, loose in zip(names, (True, "tf32"), strict=True):
            setattr(flags, name, loose)
        with launch.true_products():
            assert [getattr(flags, name) for name in names] == [False, "ieee"]
        assert [getattr(flags, name) for name in names] == [True, "tf32"]
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(flags, name, value)


@pytest.mark.parametrize("over", ["token", "feature"])
def test_lists_too_long_to_compare_are_sorted_to_the_same_choice(monkeypatch, over):
    monkeypatch.setattr(choose_, "_COMPARED", 0)
    assert not wrong("duplicated", Choice(10, over), F=40)
    assert not wrong("few_positive", Choice(10, over), F=40)
