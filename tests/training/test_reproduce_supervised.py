"""The reproduction of supervised dictionaries: its verdict on "on par", and a very small run of all
its claims."""

from pathlib import Path

import numpy as np
import pytest

from training.reproduce import Settings, supervised


@pytest.mark.parametrize(
    ("differences", "holds"),
    [
        ([0.01, -0.02, 0.0, 0.02, -0.01], True),
        ([0.3, 0.31, 0.29, 0.3, 0.3], False),
        ([-0.3, -0.31, -0.29, -0.3, -0.3], False),
        ([0.09, 0.11, 0.1, 0.12, 0.08], None),
        ([0.0, 0.0], None),
    ],
)
def test_on_par_is_within_the_margin_and_undecided_across_it(
    differences: list[float], holds: bool | None
):
    assert supervised._on_par("", np.array(differences)).holds is holds


def test_every_claim_is_measured_and_few_seeds_decide_none(
    bundled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    toy = {"n_values": 8, "n_latents": 48, "steps": 100}
    monkeypatch.setattr(
        supervised,
        "QUICK",
        supervised.Plan(1, supervised.RESIDUAL[:1], 400, 20, 8000, 4096, 64, 10, toy),
    )
    found = supervised.claims(Settings(quick=True, work=tmp_path))
    assert len(found) == 7 + 3 + 3
    assert all(claim.ours.value is not None and claim.holds is None for claim in found)
    assert 0 <= found[0].ours.value <= 1  # type: ignore[operator]
