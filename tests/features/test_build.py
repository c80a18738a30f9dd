"""The index against a dense brute-force computation that shares none of its code."""

import numpy as np
import pytest
import torch

from apps.browser import facts, tables
from saelab import matching
from saelab.errors import FailedRun, UsageError
from saelab.features import build, collect, examples
from saelab.features.reader import FeatureIndex
from tests import toy_index as toy


def dense_activations(signed=False):
    """[C, T, F] activations with position 0 blanked."""
    cache = toy.Cache()
    with torch.no_grad():
        dense_BF = toy.sae(signed=signed).encode(cache.acts).to_dense()
    dense_CTF = dense_BF.reshape(toy.C, toy.T, toy.F).clone()
    dense_CTF[:, 0] = 0
    return dense_CTF.numpy(), cache.tokens.numpy()


def check_numbers(opened, dense_CTF):
    """Density, mean, max and sign of every feature are those of the dense activations."""
    rows = opened.table("feature", descending=False, limit=1000).rows
    assert [row.feature for row in rows] == list(range(toy.F))
    for row in rows:
        values = dense_CTF[..., row.feature][dense_CTF[..., row.feature] != 0]
        assert row.fired == len(values)
        assert row.density == pytest.approx(len(values) / (toy.C * (toy.T - 1)))
        if len(values):
            assert row.mean == pytest.approx(np.abs(values).mean(), rel=1e-5)
            assert row.max == pytest.approx(values[np.abs(values).argmax()], rel=1e-6)
            assert row.positive == pytest.approx((values > 0).mean())


def check_top(opened, dense_CTF):
    """The top examples are the contexts of highest |peak|, in order, with every activation in
    them."""
    for feature in range(toy.F):
        size_CT = np.abs(dense_CTF[..., feature])
        peaks_C = size_CT.max(1)
        expected = [
            c for c in np.argsort(-peaks_C, kind="stable")[: collect.N_TOP] if peaks_C[c] > 0
        ]
        found = [example for example in opened.examples(feature) if example.band == -1]
        assert [example.context for example in found] == expected
        for example in found:
            assert np.array_equal(example.activations, dense_CTF[example.context, :, feature])
            assert example.position == size_CT[example.context].argmax()
            assert example.peak == dense_CTF[example.context, example.position, feature]


@pytest.fixture(params=[False, True], ids=["topk", "abstopk"])
def signed(request):
    return request.param


@pytest.fixture
def opened(tmp_path, signed):
    toy.build(tmp_path / "features.db", signed=signed)
    with FeatureIndex(tmp_path / "features.db") as opened:
        yield opened


def test_numbers_equal_the_dense_computation(opened, signed):
    check_numbers(opened, dense_activations(signed)[0])


def test_top_examples_equal_the_dense_computation(opened, signed):
    check_top(opened, dense_activations(signed)[0])


@pytest.mark.parametrize("check", [check_numbers, check_top])
@pytest.mark.parametrize("mutant", ["first position counted", "a pair dropped", "one percent off"])
def test_the_checkers_catch_a_wrong_index(opened, signed, check, mutant):
    dense_CTF = dense_activations(signed)[0]
    if mutant == "first position counted":
        dense_CTF[:, 0] = 1.01 * dense_CTF.max()
    elif mutant == "a pair dropped":
        dense_CTF.reshape(-1)[np.abs(dense_CTF).argmax()] = 0
    else:
        dense_CTF *= 1.01
    with pytest.raises(AssertionError):
        check(opened, dense_CTF)


def test_signed_features_show_both_tails(tmp_path):
    toy.build(tmp_path / "features.db", signed=True)
    with FeatureIndex(tmp_path / "features.db") as opened:
        rows = [row for row in opened.table(limit=1000).rows if row.fired]
        assert any(0 < row.positive < 1 for row in rows)
        assert {np.sign(row.max) for row in rows} == {-1, 1}
        peaks = [example.peak for row in rows for example in opened.examples(row.feature)]
        assert min(peaks) < 0 < max(peaks)
        bins = opened.feature(rows[0].feature).histogram
        assert bins[0].high < 0 < bins[-1].low


def test_bands_are_equal_parts_of_the_contexts_by_peak(opened, signed):
    dense_CTF, _ = dense_activations(signed)
    seen = 0
    for feature in range(toy.F):
        peaks_C = np.abs(dense_CTF[..., feature]).max(1)
        order = [
            c for c in np.argsort(peaks_C, kind="stable") if peaks_C[c] > 0
        ]  # C < N_SAMPLED: the sample is everything
        band_of = {
            context: rank * collect.N_BANDS // len(order) for rank, context in enumerate(order)
        }
        top = {example.context for example in opened.examples(feature) if example.band == -1}
        across = [example for example in opened.examples(feature) if example.band >= 0]
        for band in range(collect.N_BANDS):
            members = [example for example in across if example.band == band]
            fresh = [
                context for context, of in band_of.items() if of == band and context not in top
            ]
            assert len(members) == min(collect.PER_BAND, len(fresh))
            assert {example.context for example in members} <= set(fresh)
            seen += len(members)
    assert seen > 50


def test_the_histogram_counts_every_firing_in_its_bin(opened, signed):
    dense_CTF, _ = dense_activations(signed)
    for feature in range(toy.F):
        values = dense_CTF[..., feature]
        bins = opened.feature(feature).histogram
        assert [part.fired for part in bins] == [
            ((values >= part.low) & (values < part.high)).sum() for part in bins
        ]
        assert sum(part.fired for part in bins) == (values != 0).sum()


def test_strong_tokens_equal_the_dense_computation(opened, signed):
    dense_CTF, tokens_CT = dense_activations(signed)
    for feature in range(toy.F):
        totals = {}
        for token in np.unique(tokens_CT[:, 1:]):
            there = dense_CTF[:, 1:, feature][tokens_CT[:, 1:] == token]
            if (there != 0).any():
                totals[toy.TEXTS[token]] = (
                    there.sum(),
                    there.mean(),
                    (there != 0).sum(),
                    len(there),
                )
        found = opened.feature(feature)
        for strongest, column in ((found.by_total, 0), (found.by_mean, 1)):
            expected = sorted(totals, key=lambda text: -abs(totals[text][column]))[:10]
            assert [token.text for token in strongest] == expected
            for token in strongest:
                assert token[1:] == pytest.approx(totals[token.text], rel=1e-4)


@pytest.mark.parametrize("buffered", [10, 4_000_000])
@pytest.mark.parametrize("size", [1, 60])
def test_chunks_and_buffers_change_nothing(tmp_path, monkeypatch, size, buffered):
    toy.build(tmp_path / "a.db")
    monkeypatch.setattr(examples, "BUFFERED", buffered)
    monkeypatch.setattr(collect, "BUFFERED", buffered)
    toy.build(tmp_path / "b.db", size=size)
    with FeatureIndex(tmp_path / "a.db") as a, FeatureIndex(tmp_path / "b.db") as b:
        for feature in range(toy.F):
            assert a.feature(feature)._replace(by_total=[], by_mean=[]) == b.feature(
                feature
            )._replace(by_total=[], by_mean=[])
            assert a.examples(feature) == b.examples(feature)


def test_a_dead_feature_has_a_row_and_no_examples(tmp_path):
    summary = toy.build(tmp_path / "features.db")
    with FeatureIndex(tmp_path / "features.db") as opened:
        assert opened.feature(toy.DEAD).row.fired == 0
        assert opened.examples(toy.DEAD) == []
        assert opened.table("density").rows[-1].feature == toy.DEAD
        assert opened.table("density", descending=False).rows[-1].feature == toy.DEAD
    assert summary["dead"] == 1


def test_the_other_seed_is_compared_over_live_features(tmp_path):
    summary = toy.build(tmp_path / "features.db")
    other = summary["others"][0]
    with FeatureIndex(tmp_path / "features.db") as opened:
        matches = [opened.matches(feature)[0] for feature in range(toy.F)]
    assert [match.nearest for match in matches[: toy.F // 2]] == list(range(toy.F // 2 - 1, -1, -1))
    assert [match.cosine for match in matches[: toy.F // 2]] == pytest.approx([1] * (toy.F // 2))
    assert all(match.found == (match.partner_cosine > 0.7) for match in matches)
    assert sum(match.found for match in matches) >= toy.F // 3
    live = [match.found for feature, match in enumerate(matches) if feature != toy.DEAD]
    assert other["share"] == pytest.approx(sum(live) / len(live))
    assert sorted(match.partner for match in matches) == list(range(toy.F))  # one to one


def test_four_features_of_one_direction_share_the_nearest_and_one_of_them_is_found(tmp_path):
    made, other = toy.sae(), toy.sae(seed=9)
    axis_D = torch.eye(toy.D)[0]
    made.W_dec.data[:4] = axis_D
    other.W_dec.data[:, 0] = 0
    other.W_dec.data[7] = axis_D
    path = tmp_path / "features.db"
    options = {"tokenizer": toy.Tokenizer(), "others": [("once", other)]}
    build.build(made, toy.Cache(7), toy.HOOK, path, **options)
    with FeatureIndex(path) as opened:
        four = [opened.matches(feature)[0] for feature in range(4)]
    assert [match.nearest for match in four] == [7] * 4
    assert [match.cosine for match in four] == pytest.approx([1] * 4)
    assert len({match.partner for match in four}) == 4
    assert sum(match.partner == 7 and match.found for match in four) == 1


def test_dictionaries_too_wide_to_be_matched_have_a_nearest_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(matching, "MOST", toy.F**2 - 1)
    summary = toy.build(tmp_path / "features.db")
    assert summary["others"][0]["share"] is None
    with FeatureIndex(tmp_path / "features.db") as opened:
        match = opened.matches(0)[0]
    assert (match.found, match.partner, match.partner_cosine) == (None, None, None)
    assert match.cosine == pytest.approx(1, abs=1e-5)
    assert "nearest in seed 9" in facts.matches([match])
    assert "also found by" not in tables.indexed(summary)


def test_tokens_stop_at_whole_contexts(tmp_path):
    summary = toy.build(tmp_path / "features.db", n_tokens=10 * (toy.T - 1) + 1)
    assert (summary["n_contexts"], summary["n_tokens"]) == (11, 11 * (toy.T - 1))


class Broken(toy.Cache):
    """One activation of the third chunk is not a number."""

    def contexts(self, hook, split):
        for number, chunk in enumerate(super().contexts(hook, split)):
            yield chunk._replace(acts=chunk.acts * torch.nan) if number == 2 else chunk


def test_a_failed_build_leaves_the_old_index(tmp_path):
    path = tmp_path / "features.db"
    toy.build(path)
    before = path.read_bytes()
    weights = toy.sae()
    with pytest.raises(FailedRun, match="contexts 14 to 20"):
        build.build(weights, Broken(), toy.HOOK, path, tokenizer=toy.Tokenizer())
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["features.db"]


def test_another_width_is_refused_with_both_numbers(tmp_path):
    wide = toy.SAE(toy.D + 1, toy.F, toy.Choice(2))
    with pytest.raises(UsageError, match=r"width 8.* reads 9"):
        build.build(
            wide, toy.Cache(), toy.HOOK, tmp_path / "features.db", tokenizer=toy.Tokenizer()
        )
    with pytest.raises(UsageError, match=r"width 9.* of 8"):
        toy.build(tmp_path / "features.db", others=[("wide", wide)])
    assert not list(tmp_path.iterdir())
