"""The default learning rate, and the warning of a run that was too short for its rate."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from apps.cli.train import summary, warn
from training import Config, rate, recipes


@pytest.mark.parametrize("features", [1024, 4096, 16384])
def test_the_default_rate_ends_at_the_constant_of_long_runs(features: int):
    gao = 2e-4 / (features / 2**14) ** 0.5
    assert rate.default(30_000, features, 256, 32) == pytest.approx(gao)
    assert rate.default(1_000_000, features, 256, 32) == pytest.approx(gao)


def test_the_default_rate_by_hand():
    assert rate.default(0, 4096, 256, 32) == pytest.approx(0.0115)
    # half of the way to 30,000 steps: 1 / (.5 / .0115 + .5 / .0004)
    assert rate.default(15_000, 4096, 256, 32) == pytest.approx(2 / (1 / 0.0115 + 1 / 0.0004))
    config = Config(tokens=2048 * 15_000, features=4096)
    assert config.learning_rate(256) == rate.default(15_000, 4096, 256, 32)
    assert replace(config, lr=0.5).learning_rate(256) == 0.5


def test_the_default_rate_falls_with_steps_and_with_features():
    steps, widths = (1, 100, 300, 900, 3_000, 30_000), (256, 1024, 4096, 16384, 65536)
    table = [[rate.default(n, f, 256, 32) for f in widths] for n in steps]
    for line in [*table, *zip(*table, strict=True)]:
        assert all(a > b for a, b in pairwise(line))


def test_narrow_inputs_take_more_and_wide_ones_less():
    widths = (128, 256, 1024, 4096)
    assert all(
        rate.default(300, 4096, a, 32) > rate.default(300, 4096, b, 32) for a, b in pairwise(widths)
    )
    assert rate.default(0, 4096, 1024, 32) == pytest.approx(0.0115 / 2)
    narrowest = rate.default(0, 4096, 64, 8)
    assert narrowest == rate.default(0, 4096, 8, 8) == pytest.approx(0.0115 * 4**0.7)
    assert rate.default(30_000, 2**14, 4096, 32) == pytest.approx(2e-4)


def test_many_pairs_for_the_width_take_more():
    few, many = (rate.default(0, 4096, 64, k) for k in (8, 32))
    assert rate.default(0, 4096, 64, 1) == few and many == pytest.approx(2 * few)
    assert rate.default(0, 4096, 768, 96) == rate.default(0, 4096, 768, 1)


def test_no_recipe_sets_a_rate():
    assert [name for name in recipes.names() if recipes.read(name).lr is not None] == []


def run(folder: Path, losses: list[float], **fields: float) -> Config:
    """The config of a finished run of 100 steps with these losses, one per ten steps."""
    rest = {"lr": 0.0021, "l0": 4, "dead": 0, "tokens": 1_000}
    rows = [{"step": 10 * (i + 1), "fvu": loss, **rest} for i, loss in enumerate(losses)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return replace(Config(out=str(folder), batch=10, tokens=1_000), **fields)


FALLING = [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
LEVEL = [1.0, 0.5, 0.3, 0.25, 0.21, 0.2, 0.2, 0.2, 0.1, 0.05]  # all that falls late falls by decay


def test_a_loss_that_was_falling_when_the_decay_began_is_told(tmp_path: Path, capsys):
    config = run(tmp_path, FALLING)
    assert rate.fall(rate.rows(tmp_path), 100, 0.2) == pytest.approx(1 - 0.35 / 0.55)
    warn(config)
    told = capsys.readouterr().err
    assert "still falling" in told and "(36%" in told and "more --tokens than 1,000" in told
    assert "--lr" not in told  # the default is no cause
    warn(replace(config, lr=1e-4))
    assert "or a higher --lr than 0.0001," in capsys.readouterr().err


def test_a_loss_that_was_level_is_not(tmp_path: Path, capsys):
    warn(run(tmp_path, LEVEL))
    assert capsys.readouterr().err == ""


def test_a_run_without_rows_before_its_decay_is_not(tmp_path: Path, capsys):
    warn(run(tmp_path, FALLING[:1]))
    assert capsys.readouterr().err == ""


def test_auxk_that_brings_nothing_back_is_told_and_one_that_does_is_not(tmp_path: Path, capsys):
    config = run(tmp_path, LEVEL)
    rows = rate.rows(tmp_path)

    def told(aux: float, dead: float) -> str:
        changed = [{**row, "aux": aux, "dead": dead} for row in rows]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in changed))
        warn(config)
        return capsys.readouterr().err

    assert "stayed at 1.02" in told(1.02, 0.3) and "30.0% of the features are dead" in told(
        1.02, 0.3
    )
    assert told(0.98, 0.3) == told(0.0, 0.0) == ""


def test_the_summary_names_the_peak_rate(tmp_path: Path):
    numbers, text = summary(run(tmp_path, LEVEL))
    assert numbers["learning_rate"] == 0.0021 and text.endswith("at rate 0.0021")
