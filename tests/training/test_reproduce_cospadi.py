"""The reproduction of CoSpaDi, in its small form on the tiny model."""

from pathlib import Path

import pytest

from saelab import models
from training.reproduce import Settings, claims, cospadi, data


def test_losses_are_paired_and_a_worse_dictionary_is_told_apart(
    tiny_model: Path, tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(data, "_model", lambda device, dtype: models.load(tiny_model, device))
    monkeypatch.setattr(data, "cache", lambda *args: tiny_cache)
    plan = cospadi.Plan(2000, 600, 1, (0.5,))
    monkeypatch.setattr(cospadi, "QUICK", plan)
    settings = Settings(quick=True, work=tmp_path)
    stated = claims("cospadi", settings)
    assert ["whitened-svd" in claim.claim for claim in stated] == [True, False]
    assert all(claim.ours.low < claim.ours.value < claim.ours.high for claim in stated)
    monkeypatch.setitem(  # its twin: the rival is the same method
        cospadi.compression.METHODS, "whitened-svd", cospadi.compression.METHODS["cospadi"]
    )
    same, _ = claims("cospadi", settings)
    assert same.ours.value == same.ours.low == 0.0 and same.holds is False
