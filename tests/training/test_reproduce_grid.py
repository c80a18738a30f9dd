"""A reproduction's grid: what is said of a claim, levels reset to k pairs, and a whole small grid
that goes on where it was stopped."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from apps.browser.exports import grids
from apps.cli.common import document
from apps.cli.reproduce import grid_table
from saelab import SAE
from saelab.sparsify import Choice, Threshold
from tests.conftest import HOOK
from tests.schemas import check
from training import Config, recipes
from training.reproduce import (
    Settings,
    abstopk,
    cells,
    g_sae,
    grid,
    measure,
    mutual_feature_choice,
)
from training.reproduce.grid import Question, Size, Study, verdict

SIZE = Size((2_048, 4_096), (32,), (0.5, 1.0), 3, 256, 2_048, 300, 16_000, 0)


@pytest.mark.parametrize(
    ("holds", "said"),
    [
        ([True, True, True], "holds"),
        ([False, False, False], "does not hold"),
        ([None, True, True], "holds from 300 tokens on"),
        ([False, False, True], "holds from 900 tokens on"),
        ([True, None, False], "does not hold from 900 tokens on"),
        ([None, None, None], "undecided"),
        ([True, True, None], "undecided at 900 tokens"),
    ],
)
def test_the_answer_says_from_how_many_tokens_on(holds: list, said: str):
    assert verdict(dict(zip((100, 300, 900), holds, strict=True))) == said


@pytest.mark.parametrize("over", ["batch", "feature"])
def test_levels_are_reset_to_k_pairs_on_documents_that_set_none(over):
    draw = torch.Generator().manual_seed(0)
    x_ND = torch.randn(400, 16, generator=draw)
    other_ND = 1.5 * torch.randn(300, 16, generator=draw)  # larger, so that more pass a level
    sae = SAE(16, 32, Choice(4, over))
    sae.calibrate([x_ND])
    before = measure.quality(sae.frozen(), other_ND).l0
    after = measure.at_l0(sae.frozen(), other_ND, 4)
    assert before > 4.4, "the twin: levels as they are let too many pass"
    assert measure.quality(after, other_ND).l0 == pytest.approx(4, rel=1e-2)
    assert isinstance(after.sparsify, Threshold) and after.levels is not None
    ratio_F = (after.levels / sae.levels)[sae.levels > 0]
    assert ratio_F.std() < 1e-4 * ratio_F.mean(), "one number scales them all"
    topk = SAE(16, 32, Choice(4))
    assert measure.at_l0(topk, other_ND, 4) is topk


@pytest.mark.parametrize(
    ("paper", "methods"),
    [
        ("mutual-feature-choice", mutual_feature_choice.methods),
        ("g-sae", g_sae.methods),
        ("abstopk", abstopk._methods),
    ],
)
def test_every_method_of_a_paper_has_the_pairs_per_token_that_are_asked(paper: str, methods):
    asked = replace(recipes.read(paper), k=7)
    assert {name: config.k for name, config in methods(asked).items()} == dict.fromkeys(
        methods(asked), 7
    )


def runs(method: str, tokens: int, times: float, values: list[float]) -> list[dict]:
    """Runs with these FVUs, seed by seed."""
    return [
        {"where": "w", "method": method, "tokens": tokens, "features": 8, "times": times,
         "seed": seed, "fvu": value, "dead": value}
        for seed, value in enumerate(values)
    ]  # fmt: skip


def test_a_row_compares_each_method_at_the_rate_that_most_seeds_have():
    asked = (
        Question("new", "old", "fvu", "better"),
        Question("new", "", "dead", "none", bound=0.05),
        Question("new", "old", "dead", "more", above=True),
    )
    study = Study("w", Config(), lambda base: {}, asked)
    found = [
        *runs("old", 100, 1.0, [0.2, 0.22, 0.21]),
        *runs("old", 100, 2.0, [0.01]),  # a rate that was not chosen
        *runs("new", 100, 0.5, [0.1, 0.11, 0.105]),
        *runs("old", 300, 1.0, [0.1, 0.2, 0.3]),
        *runs("new", 300, 1.0, [0.15, 0.1, 0.35]),
    ]
    fvu, none, more = grid.rows(study, found)
    half, holds = fvu.points[100]
    assert half.value == pytest.approx(-0.5) and holds is True and fvu.points[300][1] is None
    assert fvu.verdict == "undecided at 300 tokens"
    assert none.points[100][0].value == pytest.approx(0.105) and none.points[100][1] is False
    assert more.points[100][1] is False, "below is not above"


def test_a_small_grid_goes_on_where_it_was_stopped(tiny_cache: Path, tmp_path: Path):
    base = Config(cache=str(tiny_cache), hook=HOOK, k=4)
    methods = {"TopK": "topk", "Mutual Choice": "mutual-choice"}
    study = Study(
        "tiny",
        base,
        lambda base: {name: replace(base, sparsify=word) for name, word in methods.items()},
        (Question("Mutual Choice", "TopK", "fvu", "better"),),
        lambda saes: {"loss": [float(sae.W_dec.detach().sum()) for sae in saes]},
    )
    first, settings = SIZE._replace(tokens=SIZE.tokens[:1]), Settings(work=tmp_path)
    before = cells.measured(settings, study, first)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/sae/*.safetensors")}
    whole = cells.measured(settings, study, SIZE)
    assert whole[: len(before)] == before and len(whole) == 2 * len(before) == 2 * 2 * 4
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert all(run["l0"] == pytest.approx(4, rel=0.01) for run in whole)
    for run in whole:
        sizes = {name: run[name] for name in ("tokens", "features")}
        asked = replace(base, batch=SIZE.batch, **sizes)
        assert run["lr"] == pytest.approx(run["times"] * asked.learning_rate(32), rel=1e-3)
    rows = [row.as_dict() for row in grid.rows(study, whole)]
    document_ = document(
        "reproduce_grid", 0, paper="p", quick=True, size=SIZE._asdict(), rows=rows, runs=whole
    )
    check(json.loads(json.dumps(document_)), "reproduce_grid")
    table = grid_table(document_)
    assert all(row["answer"] in table for row in rows) and "4,096 tokens" in table
    drawn = grids.figure(document_)
    values = [point["value"] for row in rows for point in row["points"]]
    assert [y for trace in drawn.data for y in trace.y] == values
