"""The check of a card runs to its end without one, and reports what fails, hangs or is wrong."""

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.gpu import correct, native, targets
from benchmarks.gpu.card import Card
from saelab import Code
from saelab.sparsify import Choice
from tests.conftest import ROOT
from tests.kernels import backends, inputs

ABSENT = ["transformer_lens", "transformers", "datasets", "tyro", "streamlit", "wandb", "plotly"]
CPU = Card("cpu", tiny=True)


def test_the_tiny_form_runs_to_its_end_where_much_is_not_installed(tmp_path: Path):
    backends.module("triton")
    out = tmp_path / "tiny.json"
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({ABSENT})); "
        f"sys.argv[1:] = ['--device', 'cpu', '--tiny', '--out', {str(out)!r}]; "
        "runpy.run_path('benchmarks/gpu_check.py', run_name='__main__')"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert answer.returncode == 0, answer.stderr
    result = json.loads(out.read_text())
    assert result["broken"] == [] and result["not reached"] == []
    states = {name: stage["state"] for name, stage in result["stages"].items()}
    assert states == dict.fromkeys((stage.name for stage in gpu_check.STAGES), "finished")
    pairs = [row for row in result["stages"]["correct"]["rows"].values() if "of" in row]
    assert len(pairs) == 9 and sum(row["of"] for row in pairs) > 90
    assert "not installed here: transformer_lens" in str(result["stages"]["verbs"]["rows"])
    assert result["targets"][0]["what"].startswith("pairs") and result["targets"][0]["met"] is True


def rows(*given: tuple[str, object], then: Callable[[], object] = bool) -> Callable:
    """A stage that yields these rows, and then calls."""

    def stage(card: Card) -> Iterator[tuple[str, object]]:
        yield from given
        then()

    return stage


def fails() -> None:
    raise ValueError("on purpose")


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable:
    """Runs a check of made-up stages; gives what is broken and the file's stages."""
    monkeypatch.setattr(gpu_check, "HERE", "made_up")

    def check(**stages: Callable) -> tuple[list[str], dict]:
        for name, stage in stages.items():
            module = ModuleType(name)
            setattr(module, name, stage)
            monkeypatch.setitem(sys.modules, f"made_up.{name}", module)
        order = tuple(gpu_check.Stage(name, 1.0) for name in stages)
        found = gpu_check.check(CPU, order, tmp_path / "out.json")
        return found, json.loads((tmp_path / "out.json").read_text())["stages"]

    return check


def test_a_stage_that_hangs_or_fails_keeps_its_rows_and_the_next_one_runs(staged: Callable):
    started = time.perf_counter()
    found, stages = staged(
        hangs=rows(("a", 1), then=lambda: time.sleep(60)),
        fails=rows(("b", 2), then=fails),
        runs=rows(("c", {"pairs wrong": 0}), ("d", {"value": 1, "allowed": 2})),
    )
    assert time.perf_counter() - started < 20
    assert found == [
        "hangs stopped after 1 s",
        "fails failed",
        "fails: failed: ValueError: on purpose",
    ]
    assert stages["hangs"]["rows"] == {"a": 1} and stages["runs"]["state"] == "finished"
    assert stages["fails"]["rows"]["b"] == 2


def test_what_is_wrong_is_said(staged: Callable):
    found, _ = staged(
        correct=rows(("a form", {"pairs wrong": 3, "of": 12}), ("another", {"failed": "why"})),
        short_run=rows(("loss", {"value": 2, "allowed": 1}), ("resumed", False)),
        peers=rows(("theirs", {"failed": "of no concern"})),
    )
    assert found == [
        "correct: a form: 3 pairs wrong",
        "correct: another: why",
        "short_run: loss: 2 is more than 1",
        "short_run: resumed: False",
    ]


def test_where_products_do_not_add_up_in_float32_nothing_more_is_asked(staged: Callable):
    found, stages = staged(ceilings=rows((gpu_check.STOP[1], False)), correct=rows(("a", 1)))
    assert list(stages) == ["ceilings"] and found == ["ceilings: adds up in float32: False"]


def test_the_time_of_all_stages_together_is_limited(tmp_path: Path):
    stages = (gpu_check.Stage("ceilings", 1.0),)
    assert gpu_check.check(CPU, stages, tmp_path / "out.json", whole=0.0) == [
        "ceilings not run: the time was up"
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("line", [[], ["--device", "cpu"], ["nonsense", "--device", "cpu"]])
def test_a_card_that_is_not_here_is_refused(line: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as ended:
        gpu_check.main(line)
    assert ended.value.code == 2 and capsys.readouterr().err


def test_a_wrong_pair_and_a_wrong_value_are_seen():
    case = inputs.make("random", B=4, F=40, D=6)
    right = correct.exactly(case, Choice(3))
    assert correct.compared(right, right)[correct.WRONG] == 0
    features = right.features.clone()
    features[0] = next(f for f in range(40) if f not in features[:3].tolist())
    other = Code(right.starts, features, right.values, 40)
    assert correct.compared(other, right)[correct.WRONG] == 2
    off = correct.compared(right.with_values(right.values * (1 + 2.0**-20)), right)
    assert off["value error, roundings"] == pytest.approx(16, rel=0.01)


MEASURED = {
    "correct": {"a": {"pairs wrong": 0, "of": 9}, "gradients": {"dx": 1.0}},
    "step": {"big product fp16, ms": 3.5, "big full step, ms": 11.0, "big choose, ms": 7.2},
    "syncs": {"topk": {"syncs": 4}, "batch": {"syncs": 11}},
    "peers": {"theirs": {"ms": 23.0}, "another": {"ms": 30.0}, "absent": {"skipped": "not here"}},
}


def test_what_is_wanted_stands_beside_what_was_measured():
    made = {t.what: t for t in targets.targets(MEASURED, "NVIDIA H100 80GB HBM3")}
    met = [target.met for target in made.values()]
    assert met == [True, True, True, False, None, False, None, None]
    assert made["full step at big, of the best peer's"].measured == pytest.approx(11 / 23)
    assert made["choose at big, ms: 1.6 products + 1.5"].most == pytest.approx(1.6 * 3.5 + 1.5)
    on_h200 = targets.targets(MEASURED, "NVIDIA H200")
    assert [target.met for target in on_h200][:2] == [True, False]


def test_a_number_that_is_missing_or_failed_meets_no_target():
    assert not any(target.met for target in targets.targets({}, "NVIDIA H100"))
    rows = {**MEASURED["correct"], "another form": {"failed": "why"}}
    assert targets.targets({"correct": rows}, None)[0].met is None


LINES = """
tests/kernels/test_triton.py::test_one[triton-Choice(k=3, over='batch')] PASSED [ 10%]
[gw3] [ 20%] PASSED tests/kernels/test_triton.py::test_two
[gw0] [ 30%] FAILED tests/kernels/test_triton.py::test_three
[gw1] [ 40%] SKIPPED tests/kernels/test_triton.py::test_four
FAILED tests/kernels/test_triton.py::test_three - AssertionError: 3 pairs are wrong
==== 1 failed, 2 passed, 1 skipped in 3.21s ====
"""


def test_tests_that_fail_on_the_card_are_named_with_why():
    made = dict(native.verdicts(LINES.splitlines(keepends=True)))
    assert made["tests"] == {"PASSED": 2, "FAILED": 1, "SKIPPED": 1}
    (failed,) = [row for name, row in made.items() if "test_three" in name]
    assert "3 pairs are wrong" in failed["failed"]
    early = native.verdicts(LINES.splitlines(keepends=True)[:4])  # known before the summary is
    assert any("test_three" in name for name, _ in early)


def test_every_stage_is_a_function_of_its_module():
    modules = {
        s.name: importlib.import_module(f"{gpu_check.HERE}.{s.name}") for s in gpu_check.STAGES
    }
    assert all(callable(getattr(module, name)) for name, module in modules.items())
    assert sum(stage.seconds for stage in gpu_check.STAGES) < 1.5 * gpu_check.WHOLE <= 720


@pytest.mark.gpu
def test_at_real_sizes_every_form_gives_float64s_pairs():
    wrong = {
        label: row
        for label, row in correct.correct(Card("cuda"))
        if row.get(correct.WRONG) or "failed" in row
    }
    assert wrong == {}
