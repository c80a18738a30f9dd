"""The claims on SAEs of attention outputs: a very small run of all of them, and planted numbers."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from saelab.activations import Cache
from tests.conftest import HOOK
from training.reproduce import Settings, attention

TINY = attention.Plan(1, 12_000, 8_192, 128, 8, 512, 500, 1_000, 8, 3)


def test_every_claim_is_measured_and_few_seeds_decide_none(
    bundled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(attention, "QUICK", TINY)
    found = attention.claims(Settings(quick=True, work=tmp_path))
    assert len(found) == 4 + 2 + 3 + 1
    assert all(claim.ours.value is not None and claim.holds is None for claim in found)
    kept, about = found[:4], found[4:6]
    assert all(claim.ours.value < 1 for claim in kept)  # type: ignore[operator]
    assert all(0 <= claim.ours.value <= 1 for claim in about)  # type: ignore[operator]
    assert "layer 3's 4 induction heads" in found[6].claim


def test_heads_are_counted_by_their_themes_and_by_what_they_share(
    tiny_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of four heads one has one theme, two have features that are alike."""

    def measured(saes, cache, n_tokens, seed):
        themes, alike = (1.2, 2.0, 6.0, 8.0), (True, True, False, False)
        both = zip(themes, alike, strict=True)
        return {"a": [SimpleNamespace(themes=n, alike=yes) for n, yes in both]}

    monkeypatch.setattr(attention.polysemanticity, "of_model", measured)
    saes = {"a": [None] * attention.FULL.seeds}
    several, alike = attention._polysemantic(Settings(), attention.FULL, Cache(tiny_cache), saes)
    assert several.ours.value == 0.75 and several.holds is False
    assert alike.ours.value == 0.5 and alike.holds is True


def test_what_induction_heads_read_is_set_against_what_the_layers_other_heads_read(
    monkeypatch: pytest.MonkeyPatch,
):
    """Features 0 and 1 are head 5's, of which 0.8 and 0.6 lie behind the same token; of the two of
    head 2 it is 0.1 and 0.3."""
    at = list(attention.writers.PLACES).index(attention.SAID_BEFORE)
    places_FP = torch.zeros(4, len(attention.writers.PLACES))
    places_FP[:, at] = torch.tensor([8.0, 3.0, 1.0, 3.0])
    places_FP[:, at - 1] = torch.tensor([2.0, 2.0, 9.0, 7.0])
    written = SimpleNamespace(places_FP=places_FP)
    heads = (torch.arange(4), torch.tensor([5, 5, 2, 2]), None)
    monkeypatch.setattr(attention.writers, "contexts", lambda *given: None)
    monkeypatch.setattr(attention.writers, "write", lambda *given: written)
    monkeypatch.setattr(attention.writers, "leading", lambda *given: heads)
    model = SimpleNamespace(cfg=SimpleNamespace(n_heads=8, d_vocab=9))
    nothing: Any = None
    gain = attention._read_before(attention.FULL, model, nothing, nothing, [5, 7])
    assert gain == pytest.approx(0.7 - 0.2)


@pytest.mark.parametrize(("least", "holds"), [(0.02, True), (0.3, False)])
def test_a_head_holds_still_and_another_wants_a_long_prefix(
    least: float, holds: bool, monkeypatch: pytest.MonkeyPatch
):
    """Head 5 rises by 0.6 from the shortest prefix to the longest, head 2 by `least`."""

    def scores(model, layer, lengths, n, seed):
        rows_KNH = torch.zeros(len(lengths), 2, 8)
        rows_KNH[-1, :, 5], rows_KNH[-1, :, 2] = 0.6 + 0.001 * seed, least + 0.001 * seed
        return rows_KNH

    monkeypatch.setattr(attention.kinds, "by_prefix", scores)
    rises, stays = attention._prefixes(Settings(), attention.FULL, None, 3, [2, 5])
    assert "head 3.5" in rises.claim and rises.holds is True
    assert "head 3.2" in stays.claim and stays.holds is holds


def test_the_share_kept_is_all_of_a_perfect_sae_and_nothing_of_none(
    tiny_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    from saelab import SAE, Choice

    monkeypatch.setattr(attention, "added_loss", lambda saes, *given: [0.0, 4.0, 1.0, 4.0])
    saes = [SAE(8, 16, Choice(2), seed=seed) for seed in range(3)]
    claim = attention._score(attention.FULL, SimpleNamespace(), Cache(tiny_cache), HOOK, saes)
    assert claim.ours.value == pytest.approx((1 + 0 + 0.75) / 3) and claim.holds is None
