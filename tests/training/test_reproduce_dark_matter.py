"""The dark-matter reproduction: its planted truth, its verdicts by hand, the whole of it on tiny
settings."""

import numpy as np
import pytest
import torch

from saelab import SAE, Choice
from saelab.activations import Cache
from saelab.analysis.dark_matter import reduce
from saelab.statistics import Estimate
from training.reproduce import Settings, claims, dark_matter, data, planted
from training.reproduce.dark_matter import Sizes


@pytest.mark.parametrize("rank", [64, 16, 2])
def test_the_planted_ratio_is_the_closed_form(rank: int):
    # Noise of level 1 either way: 2 d less what x betrays of the dense part, 1/2 where the signal
    # is and 1 elsewhere; over d. A fit on n tokens adds p / n of it, where p is d with dense noise
    # and the rank without.
    expected = (1 + rank / 128) * (1 + 64 / planted.FITTED) / (1 + rank / planted.FITTED)
    assert planted.nonlinear_ratio(rank, seed=0) == pytest.approx(expected, rel=0.01)


def estimate(value: float, half: float = 0.05) -> dict:
    """An estimate as a report has it."""
    return Estimate(value, value - half, value + half).as_dict()


def test_what_is_linear_is_judged_by_whole_intervals():
    run = {
        "linear_r2": estimate(0.5),
        "norm_r2": estimate(0.97, 0.01),
        "ce_proportion": estimate(1.2, 0.1),
        "controls": {"random_init": {"norm_r2": estimate(0.99)}},
    }
    half, norm, untrained, loss = dark_matter._linearity(run)
    assert (half.holds, norm.holds, untrained.holds, loss.holds) == (True, True, None, None)
    assert [claim.ours.value for claim in (half, norm, untrained, loss)] == [0.5, 0.97, 0.99, 1.2]
    bad = run | {"linear_r2": estimate(0.8), "norm_r2": estimate(0.5), "ce_proportion": estimate(2)}
    assert [claim.holds for claim in dark_matter._linearity(bad)] == [False, False, None, False]


def test_scaling_is_read_off_the_narrowest_and_the_widest():
    pairs = [("F=1", "F=2", 0.1), ("F=1", "F=4", 0.9), ("F=2", "F=4", 0.2)]
    norms = [
        {"from": a, "to": b, "r2": estimate(r2), "added": estimate(r2 / 2)} for a, b, r2 in pairs
    ]
    law = {"sizes": [1, 2, 4], "fvu_nonlinear_ratio": estimate(1.0)}
    told, added, ratio = dark_matter._scaling({"laws": [law], "norms": norms})
    assert (told.ours.value, added.ours.value, ratio.ours.value) == (0.9, 0.45, 1.0)
    assert told.holds and added.holds and ratio.holds and "F=1 to F=4" in told.claim
    norms[1] |= {"r2": estimate(0.3), "added": estimate(-0.2)}
    law["fvu_nonlinear_ratio"] = estimate(0.5)
    claims = dark_matter._scaling({"laws": [law], "norms": norms})
    assert [claim.holds for claim in claims] == [False, False, False]


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory):
    """Small settings, and a cache of both hooks by the bundled model."""
    settings = Settings(quick=True, work=tmp_path_factory.mktemp("work"))
    hooks = [dark_matter.EARLIER, dark_matter.HOOK]
    text = tmp_path_factory.mktemp("text")
    for number in range(60):
        lines = [f"def add{i}(a, b):\n    return a + {i * number}\n" for i in range(12)]
        (text / f"m{number}.py").write_text("".join(lines))
    return settings, Cache(data.cache(settings, str(text), hooks, 12_000))


def test_a_reduction_that_can_do_nothing_is_told_from_one_that_does_all(
    captured, monkeypatch: pytest.MonkeyPatch
):
    """The share that each takes off, with reductions whose results are known."""
    _, cache = captured
    sae = SAE(256, 64, Choice(8))

    def known(share: float):
        def reduced(sae, fitted, scored) -> reduce.Reduction:
            x_ND = scored if isinstance(scored, torch.Tensor) else scored[0]
            return reduce.Reduction(torch.ones(len(x_ND)), torch.full((len(x_ND),), 1 - share))

        return reduced

    monkeypatch.setattr(dark_matter.reduce, "by_pursuit", known(0.0))
    monkeypatch.setattr(dark_matter.reduce, "by_earlier", known(0.25))
    pursuit, earlier, more = dark_matter._reductions(sae, sae, cache, 300, 0)
    assert pursuit.ours.value == pytest.approx(0) and pursuit.holds is not True
    for claim in (earlier, more):
        assert claim.ours.value == pytest.approx(0.25) and claim.holds is True


def test_the_whole_of_it_on_tiny_settings(captured, monkeypatch: pytest.MonkeyPatch):
    """Every claim has a number and an interval; those about an SAE are about the widest."""
    settings, cache = captured
    monkeypatch.setattr(
        dark_matter, "QUICK", Sizes(12_000, 4_000, (32, 64, 96, 128), 6_000, 300, 300)
    )
    monkeypatch.setattr(dark_matter, "K", 8)
    monkeypatch.setattr(planted, "SEEDS", 2)
    monkeypatch.setattr(data, "cache", lambda *asked: cache.path)
    made = claims("dark-matter", settings)
    assert [claim.claim.split(",")[0] for claim in made][:1] == ["R2 of the error vector from x"]
    assert len(made) == 4 + 3 + 3 + 1 + 3
    assert all(claim.ours.value is not None for claim in made)
    assert all(np.isfinite(claim.ours.value) for claim in made)
    assert any("F=32 to F=128" in claim.claim for claim in made)
    parts = next(claim for claim in made if claim.claim.startswith("FVU of an SAE trained"))
    assert parts.ours.low <= parts.ours.value <= parts.ours.high
