"""The dark-matter reproduction's planted truth and verdicts; the whole of it runs in minutes, not
here."""

import pytest

from training.reproduce import dark_matter, planted


@pytest.mark.parametrize("rank", [64, 16, 2])
def test_the_planted_ratio_is_the_closed_form(rank: int):
    # Noise of level 1 either way: 2 d less what x betrays of the dense part, 1/2 where the signal
    # is and 1 elsewhere; over d. A fit on n tokens adds p / n of it, where p is d with dense noise
    # and the rank without.
    expected = (1 + rank / 128) * (1 + 64 / planted.FITTED) / (1 + rank / planted.FITTED)
    assert planted.nonlinear_ratio(rank, seed=0) == pytest.approx(expected, rel=0.01)


def test_a_verdict_needs_the_whole_interval_within_the_bounds():
    def verdict(low: float, high: float) -> bool | None:
        return dark_matter._within({"value": 0, "low": low, "high": high}, 0.4, 0.6)

    assert verdict(0.45, 0.55) is True
    assert verdict(0.3, 0.5) is None and verdict(0.5, 0.7) is None and verdict(0.3, 0.7) is None
    assert verdict(0.1, 0.4) is False and verdict(0.6, 0.9) is False
