"""What a dtype adds to an SAE is told from what it does not, in the library and as typed."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

import saelab
from apps.cli import main
from saelab.activations.outliers import Outlier, outliers
from saelab.activations.stored import round_trip
from saelab.errors import UsageError
from saelab.evaluation import evaluate, rounding
from tests.conftest import HOOK
from tests.schemas import check


@pytest.fixture(scope="module")
def opened(tiny_run: Path):
    """The session's run with its float32 cache and model."""
    return saelab.open(tiny_run)


def test_the_exact_numbers_are_the_reports(opened):
    _, sae, cache, model = opened
    result = rounding.check(sae, cache, model)
    report = evaluate(sae, cache, model)
    for name in ("value", "low", "high"):
        assert result["fvu"][name] == pytest.approx(report["fvu"][name], rel=1e-6)
    assert result["ce_spliced"] == pytest.approx(report["ce_spliced"], abs=1e-5)
    assert result["tokens"] == report["tokens"] and result["documents"] == report["documents"]


def test_what_int8_adds_is_what_float64_says(opened):
    _, sae, cache, model = opened
    result = rounding.check(sae, cache, model)
    x = torch.cat([tokens.x for tokens in cache.counted(HOOK, "held_out")])

    def error(read: torch.Tensor) -> float:
        return float((sae(read).detach().double() - x.double()).square().sum())

    share = error(round_trip(x, "int8")) / error(x) - 1
    assert result["dtypes"]["int8"]["fvu_share"]["value"] == pytest.approx(share, rel=0.02)
    spread = float((x.double() - x.double().mean(0)).square().sum())
    added = (error(round_trip(x, "int8")) - error(x)) / spread
    assert result["dtypes"]["int8"]["fvu_added"]["value"] == pytest.approx(added, rel=0.02)


def test_ways_that_change_nothing_much_or_overflow_are_told_apart(opened):
    _, sae, cache, model = opened
    ways = {
        "same": lambda x: x,
        "int8": lambda x: round_trip(x, "int8"),
        "4 bits": lambda x: (x / x.abs().amax() * 7).round() * x.abs().amax() / 7,
        "float16": lambda x: (x * 1e6).half().float() / 1e6,
    }
    dtypes = rounding.check(sae, cache, model, ways=ways)["dtypes"]
    zero = {"value": 0.0, "low": 0.0, "high": 0.0, "null": 0.0}
    assert dtypes["same"]["fvu_added"] == zero and dtypes["same"]["ce_added"] == zero
    assert dtypes["same"]["advised"] and dtypes["int8"]["advised"]
    coarse = dtypes["4 bits"]  # the known-bad twin
    assert coarse["fvu_added"]["low"] > 0 and coarse["fvu_share"]["value"] > 0.02
    assert not coarse["advised"]
    assert dtypes["float16"]["overflows"] and dtypes["float16"]["fvu_share"]["value"] is None
    assert not dtypes["float16"]["advised"]


def test_a_dimension_counts_as_an_outlier_by_its_rms():
    rms = torch.ones(64)
    rms[[3, 9, 11]] = torch.tensor([7.9, 8.1, 40.0])
    assert [each.dimension for each in outliers(rms)] == [11, 9]
    assert outliers(torch.ones(64)) == [] == outliers(torch.zeros(64))


def test_a_part_of_an_activation_is_refused(opened, monkeypatch: pytest.MonkeyPatch):
    _, sae, cache, model = opened
    monkeypatch.setattr(cache, "whole", lambda hook: "blocks.0.hook_out")
    with pytest.raises(UsageError, match=r"part of an activation.* check an SAE at blocks\.0"):
        rounding.check(sae, cache, model)


def test_the_command_prints_a_table_and_a_document(
    tiny_run: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    argv = ["capture", "--check", str(tiny_run)]
    assert main([*argv, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "capture-check")
    bytes_ = {name: each["bytes_per_position"] for name, each in result["dtypes"].items()}
    assert bytes_ == {"float16": 64, "bfloat16": 64, "int8": 36}
    with pytest.raises(jsonschema.ValidationError):  # known-bad twin
        check({**result, "outliers": [{"dimension": 3}]}, "capture-check")
    large = [Outlier(7, 40.0), *(Outlier(i, 9.0) for i in range(4))]
    monkeypatch.setattr(rounding, "outliers", lambda rms_D: large)
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tiny_run} at {HOOK}: FVU ") and "\nint8           36  " in said
    last = said.splitlines()[-1]
    assert last.startswith("advised against: int8, as the rms of dimensions 7 (40 x), 0 (9 x), ")
    assert " and 1 more is over 8 x the median dimension's" in last


def test_a_capture_in_int8_says_where_it_is_advised_against(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    x = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "even.npy", x.numpy())
    x[:, 5] *= 30
    np.save(tmp_path / "outlier.npy", x.numpy())
    for name, dtype, warned in (
        ("outlier", "int8", True),
        ("even", "int8", False),
        ("outlier", "float16", False),
    ):
        argv = ["capture", "--arrays", str(tmp_path / f"{name}.npy"), "--context", "20"]
        assert main([*argv, "--dtype", dtype, "--out", str(tmp_path / f"{name}-{dtype}")]) == 0
        said = capsys.readouterr().out
        assert ("int8 is advised against at acts: the rms of dimensions 5 (" in said) == warned


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--check", "RUN", "--hook", HOOK], "--hook does not go with it"),
        (["--check", "RUN", "--dry-run"], "--dry-run does not go with it"),
        (["--hook", HOOK, "--cache", "c"], "--cache goes with --check"),
        (["--check", "no/such/run"], "no/such/run"),
    ],
)
def test_what_does_not_go_with_a_check_is_refused(
    tiny_run: Path, options: list, words: str, capsys: pytest.CaptureFixture
):
    assert main(["capture", *(str(tiny_run) if o == "RUN" else o for o in options)]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
