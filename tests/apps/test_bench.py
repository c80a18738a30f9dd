"""`saelab bench`: what it times, how it compares, and what it refuses."""

import json

import pytest

from apps.cli import bench, main

SMALL = ["--width", "16", "--features", "64", "--k", "4", "--batch", "32", "--repeats", "3"]


def test_entries_are_timed_and_compared(capsys: pytest.CaptureFixture):
    assert (
        main(["bench", *SMALL, "--json", "--only", bench.DENSE, "topk", "topk, AuxK with 90% dead"])
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert list(result["prices"]) == [bench.DENSE, "topk", "topk, AuxK with 90% dead"]
    assert all(
        0 < price["least"] <= price["median"] and price["products"] > 0
        for price in result["prices"].values()
    )
    assert result["shape"] == {"width": 16, "features": 64, "k": 4, "batch": 32}


def test_the_table_divides_by_the_product_and_the_dense_step_by_it():
    prices = {
        name: {"median": ms, "least": ms, "products": ms / 2}
        for name, ms in ((bench.DENSE, 40.0), ("topk", 5.0))
    }
    rows = bench.table({**prices, "a peer": {"missing": "not installed"}}).splitlines()
    assert rows[2].split() == ["topk", "5.0", "5.0", "2.50", "8.0"]
    assert rows[3].split(maxsplit=2)[2] == "not run: not installed"


def test_held_features_are_dead_in_every_step():
    from training.benchmark import Shape

    step = bench.trainer(Shape(16, 64, 4, 32), "topk", dead=0.5)
    run, *_ = step.args
    assert run.counters.dead() == 0
    step()
    assert int(run.counters.dead() * 64) >= 32


def test_an_unknown_entry_is_refused_and_the_screen_explained(capsys: pytest.CaptureFixture):
    assert main(["bench", *SMALL, "--only", "warp"]) == 2
    assert "no entry warp; there are dense torch, topk" in capsys.readouterr().err.splitlines()[-1]
    assert main(["bench", "--explain"]) == 0
    assert "screens in" in capsys.readouterr().out
