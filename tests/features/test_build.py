"""The index against a dense brute-force computation that shares none of its code."""

import numpy as np
import pytest
import torch

from saelab.errors import FailedRun, UsageError
from saelab.features import build, cofiring, collect, examples, pole_sums, schema, strongest
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


def poles(dense_CTF, signed):
    """(feature, sign, [C, T] activations of that sign) of every pole."""
    for feature in range(toy.F):
        for sign in (1, -1) if signed else (1,):
            values_CT = dense_CTF[..., feature]
            yield feature, sign, np.where(sign * values_CT > 0, values_CT, 0)


def different(contexts, size_CT):
    """Those whose tokens up to the peak are not those of one before; contexts begin alike."""
    tokens_CT, seen, firsts = toy.Cache().tokens.numpy(), set(), []
    for context in contexts:
        peak = size_CT[context].argmax()
        window = tuple(tokens_CT[context, max(0, peak + 1 - examples.WINDOW) : peak + 1])
        firsts += [] if window in seen else [context]
        seen.add(window)
    return firsts


def check_top(opened, dense_CTF):
    """The top examples of each sign are the contexts of highest |peak|, in order, with every
    activation of that sign in them."""
    for feature, sign, values_CT in poles(dense_CTF, opened.summary["signed"]):
        size_CT = np.abs(values_CT)
        peaks_C = size_CT.max(1)
        order = [c for c in np.argsort(-peaks_C, kind="stable") if peaks_C[c] > 0]
        top = [e for e in opened.examples(feature) if (e.sign, e.band) == (sign, -1)]
        assert [example.context for example in top] == different(order, size_CT)[: schema.N_TOP]
        assert [example.rank for example in top] == list(range(len(top)))
        for example in top:
            assert np.array_equal(example.activations, values_CT[example.context])
            assert example.position == size_CT[example.context].argmax()
            assert example.value == values_CT[example.context, example.position]


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


def test_signed_features_show_both_poles_apart(tmp_path):
    toy.build(tmp_path / "features.db", signed=True)
    with FeatureIndex(tmp_path / "features.db") as opened:
        rows = [row for row in opened.table(limit=1000).rows if row.fired]
        assert {np.sign(row.max) for row in rows} == {-1, 1}
        two_sided = [row.feature for row in rows if 0.2 < row.positive < 0.8]
        assert two_sided
        for feature in two_sided:
            examples = opened.examples(feature)
            signs = [example.sign for example in examples]
            assert signs == sorted(signs, reverse=True) and {*signs} == {1, -1}
            assert all(np.sign(example.value) == example.sign for example in examples)
            known = opened.feature(feature)
            for listed in (known.by_total, known.by_mean):
                assert {token.sign for token in listed} == {1, -1}
                assert all(np.sign(token.total) == token.sign for token in listed)
            assert known.histogram[0].high < 0 < known.histogram[-1].low


def drawn(dense_CTF, feature, sign, values_CT, signed):
    """The (context, position) of the firings that are drawn, in their random order."""
    context_N, position_N = values_CT.nonzero()
    pole = feature * (1 + signed) + (sign < 0)
    print_N = examples.fingerprints(np.full(len(context_N), pole), context_N, position_N, 0)
    order = np.argsort(print_N)[: collect.N_SAMPLED]
    return list(zip(context_N[order].tolist(), position_N[order].tolist(), strict=True))


def test_bands_are_equal_parts_of_a_sample_of_the_firings(opened, signed):
    dense_CTF, _ = dense_activations(signed)
    seen = 0
    for feature, sign, values_CT in poles(dense_CTF, signed):
        sample = drawn(dense_CTF, feature, sign, values_CT, signed)
        by_size = sorted(sample, key=lambda place: abs(values_CT[place]))
        shown = [e for e in opened.examples(feature) if e.sign == sign]
        top = {(e.context, e.position) for e in shown if e.band == -1}
        for band in range(schema.N_BANDS):
            part = [p for n, p in enumerate(by_size) if n * schema.N_BANDS // len(sample) == band]
            fresh = [place for place in sample if place in part and place not in top]
            members = [e for e in shown if e.band == band]
            assert {(e.context, e.position) for e in members} == {*fresh[: schema.PER_BAND]}
            sizes = [abs(e.value) for e in members]
            assert sizes == sorted(sizes, reverse=True)
            seen += len(members)
    assert seen > 100


def spread(values_CT, firings_N):
    """Where in a pole's firings, from 0 (weakest) to 1, the weakest quarter of some ends."""
    ordered = np.sort(np.abs(values_CT[values_CT != 0]))
    at = np.sort(np.abs(firings_N))[: max(1, len(firings_N) // 4)].max()
    return np.searchsorted(ordered, at) / len(ordered)


def test_the_weak_end_of_a_dense_feature_is_shown(opened, signed):
    """Bands of the contexts' peaks never show it, as a dense feature is strong somewhere in every
    context."""
    dense_CTF, _ = dense_activations(signed)
    ours, peaks = [], []
    for feature, sign, values_CT in poles(dense_CTF, signed):
        across = [e.value for e in opened.examples(feature) if e.sign == sign and e.band >= 0]
        if (values_CT != 0).sum() >= 200 and len(across) >= 8:
            ours.append(spread(values_CT, np.array(across)))
            peaks.append(spread(values_CT, np.abs(values_CT).max(1)))
    assert len(ours) > 5
    assert np.mean(ours) < 0.35 and np.mean(peaks) > 0.5


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
    for feature, sign, values_CT in poles(dense_CTF, signed):
        whole, totals = np.abs(values_CT).sum(dtype=np.float64), {}
        for token in np.unique(tokens_CT[:, 1:]):
            there = values_CT[:, 1:][tokens_CT[:, 1:] == token].astype(np.float64)
            fired = (there != 0).sum()
            if fired:
                shares = (np.abs(there).sum() / whole, fired / len(there))
                counts = (there.sum(), there.mean(), fired, len(there))
                totals[toy.TEXTS[token]] = (sign, *counts, *shares)
        known = opened.feature(feature)
        for ranked, column in ((known.by_total, 1), (known.by_mean, 2)):
            expected = sorted(totals, key=lambda text: -abs(totals[text][column]))[:10]
            mine = [token for token in ranked if token.sign == sign]
            assert [token.text for token in mine] == expected
            for token in mine:
                assert token[1:] == pytest.approx(totals[token.text], rel=1e-5)
                assert token.score == pytest.approx(token.selectivity * token.coverage)


@pytest.mark.parametrize("buffered", [10, 4_000_000])
@pytest.mark.parametrize("size", [1, 60])
def test_chunks_and_buffers_change_nothing(tmp_path, monkeypatch, size, buffered):
    toy.build(tmp_path / "a.db")
    for module in (examples, pole_sums, strongest):
        monkeypatch.setattr(module, "BUFFERED", buffered)
    monkeypatch.setattr(pole_sums, "RUNS", 3)
    monkeypatch.setattr(pole_sums, "POLES", 7)
    monkeypatch.setattr(cofiring, "FLOPS", buffered)
    monkeypatch.setattr(examples, "POLES", 5)
    toy.build(tmp_path / "b.db", size=size)
    with FeatureIndex(tmp_path / "a.db") as a, FeatureIndex(tmp_path / "b.db") as b:
        for feature in range(toy.F):
            assert a.feature(feature)._replace(by_total=[], by_mean=[], row=None) == b.feature(
                feature
            )._replace(by_total=[], by_mean=[], row=None)
            assert a.examples(feature) == b.examples(feature)
            assert a.places(feature) == b.places(feature)
        for text in ("cat", "numpy", " "):
            assert a.search(text) == b.search(text)
    assert [entry.name for entry in tmp_path.iterdir() if not entry.suffix] == []


def test_a_dead_feature_has_a_row_and_no_examples(tmp_path):
    summary = toy.build(tmp_path / "features.db")
    with FeatureIndex(tmp_path / "features.db") as opened:
        assert opened.feature(toy.DEAD).row.fired == 0
        assert opened.examples(toy.DEAD) == []
        assert opened.table("density").rows[-1].feature == toy.DEAD
        assert opened.table("density", descending=False).rows[-1].feature == toy.DEAD
    assert summary["unseen"] == 1


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
