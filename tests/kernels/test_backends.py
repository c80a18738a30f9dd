"""What holds of every backend in `kernels.HOMES`: it has the reference's functions, and chooses as
float64 does. Shapes are tiny, so that Triton can be interpreted."""

import inspect
from types import ModuleType, SimpleNamespace

import pytest
import torch

from saelab import Code, kernels
from saelab.kernels import reference
from saelab.sparsify import Choice, Threshold
from tests import native
from tests.kernels import backends, inputs, truth
from tests.pretend import pretend_accelerator

FUNCTIONS = [
    name
    for name, function in inspect.getmembers(kernels, inspect.isfunction)
    if function.__module__ == kernels.__name__ and hasattr(reference, name)
]


def arguments(module: ModuleType | SimpleNamespace, name: str) -> list[tuple]:
    """Name, kind and default of each argument of a function; none where there is no such one."""
    function = getattr(module, name, lambda: None)
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def differing(module: ModuleType | SimpleNamespace) -> list[str]:
    """The functions that are missing or have other arguments than the reference's."""
    return [name for name in FUNCTIONS if arguments(module, name) != arguments(reference, name)]


@pytest.mark.parametrize("name", backends.NAMES)
def test_every_backend_has_the_functions_of_the_reference_with_its_arguments(name):
    assert differing(backends.module(name)) == []


def test_a_backend_that_lacks_a_function_or_names_an_argument_otherwise_is_caught():
    assert FUNCTIONS == ["choose", "column_sums", "scores", "sddmm", "spmm", "spmm_t"]
    whole = {name: getattr(reference, name) for name in FUNCTIONS}
    assert differing(SimpleNamespace(**whole)) == []
    assert differing(SimpleNamespace(**{**whole, "spmm": lambda code, weights: None})) == ["spmm"]
    del whole["choose"]
    assert differing(SimpleNamespace(**whole)) == ["choose"]


@pytest.mark.parametrize("name", backends.NAMES)
def test_float32_tensors_go_to_the_backend_of_their_device_and_others_to_the_reference(name):
    here = backends.device(name)
    if here in kernels.HOMES[name].devices:
        assert kernels._home(torch.empty(1, device=here)) == kernels.HOMES[name]
    assert kernels._home(torch.empty(1, device=here).double()) == kernels.HOMES["reference"]
    assert kernels._home(torch.empty(1, device="meta")) == kernels.HOMES["reference"]


SPARSIFIERS = [
    Choice(3),
    Choice(3, signed=True, beta=0.7),
    Choice(3, "batch"),
    Choice(3, "batch", signed=True, beta=0.7),
    Choice(8, "feature"),
    Choice(8, "feature", signed=True, beta=0.7),
    Threshold(0.3),
    Threshold(0.3, signed=True, bandwidth=0.4),
]
# Interpreted, Triton is slow: every input meets two sparsifiers, every sparsifier a quarter of the
# inputs. Where there is a card, as everywhere else, each meets all.
CASES = [
    (name, maker, sparsify)
    for name in backends.NAMES
    for i, maker in enumerate(inputs.MAKERS)
    for j, sparsify in enumerate(SPARSIFIERS)
    if name != "triton" or torch.cuda.is_available() or (i + j) % 4 == 0
]


@pytest.mark.parametrize(("name", "maker", "sparsify"), CASES, ids=str)
def test_every_input_is_chosen_from_as_float64_does(name, maker, sparsify, monkeypatch):
    if name == "triton":  # several tiles
        monkeypatch.setattr(f"{backends.module(name).__package__}.screen._ENTRIES", 100)
    case = inputs.make(maker, B=4, F=40, D=6)
    code = backends.choose(name, case, sparsify)
    assert not truth.objections(code, truth.pairs(case, sparsify))


@pytest.mark.parametrize("name", backends.NAMES)
def test_a_feature_may_have_no_budget(name):
    case, sparsify = inputs.make("random", B=4, F=40, D=6), Choice(3, "feature")
    budget = torch.arange(40) % 3
    code = backends.choose(name, case, sparsify, budget=budget)
    assert not truth.objections(code, truth.pairs(case, sparsify, budget=budget))


def test_the_kernels_run_natively_where_there_is_a_card(monkeypatch):
    for card, expected in ((True, {}), (False, {"TRITON_INTERPRET": "1"})):
        monkeypatch.setattr(torch.cuda, "is_available", lambda card=card: card)
        environment: dict[str, str] = {}
        native.natively_where_there_is_a_card(environment)
        assert environment == expected
        assert backends.device("triton") == ("cuda" if card else "cpu")
    environment = {"TRITON_INTERPRET": "0"}  # whoever says otherwise is obeyed
    native.natively_where_there_is_a_card(environment)
    assert environment == {"TRITON_INTERPRET": "0"}


def test_a_backends_tensors_lie_on_its_device_and_one_that_stays_behind_is_caught(monkeypatch):
    home = kernels.Home(reference.__name__, ("pretend",))
    monkeypatch.setitem(kernels.HOMES, "away", home)
    monkeypatch.setattr(backends, "device", lambda name: "pretend")
    case, sparsify = inputs.make("random", B=4, F=40, D=6), Choice(3)
    with pretend_accelerator():
        code = backends.choose("away", case, sparsify)
        assert not truth.objections(code, truth.pairs(case, sparsify))
        x, W, _ = backends.there("away", *case[:3])
        apart = "x lies on pretend:0 and b_enc on cpu"
        with kernels.backend("away"), pytest.raises(ValueError, match=apart):
            kernels.choose(x, W, case.b, sparsify)


def test_a_library_that_a_backend_lacks_is_named_with_the_remedy(monkeypatch, tmp_path):
    (tmp_path / "lacking_backend.py").write_text("import quite_absent")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(kernels.HOMES, "lacking", kernels.Home("lacking_backend"))
    sentence = (
        "lacking_backend needs quite_absent, which is not installed: pip install quite_absent"
    )
    code = kernels.Code(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), 1)
    with kernels.backend("lacking"), pytest.raises(ModuleNotFoundError, match=sentence):
        kernels.spmm(code, torch.ones(1, 2))


@pytest.mark.parametrize(
    "sparsify", [Choice(3), Choice(3, "batch", signed=True, beta=0.7)], ids=str
)
@pytest.mark.parametrize("name", backends.NAMES)
def test_scores_are_those_that_float64_ranks_by(name, sparsify):
    case = inputs.make("random", B=4, F=40, D=6)
    code = backends.choose(name, case, sparsify)
    dtype = torch.float64 if name == "reference" else torch.float32
    x, W, b, grad, W_dec = backends.there(name, *(tensor.to(dtype) for tensor in case))
    here = Code(*backends.there(name, code.starts, code.features, code.values), code.n_features)
    with kernels.backend(name):
        score_N = kernels.scores(here, x, W, b, sparsify, grad=grad, W_dec=W_dec).cpu()
    right_BF = torch.from_numpy(truth.scores(case, sparsify)[1])
    torch.testing.assert_close(score_N, right_BF[code.tokens, code.features])
