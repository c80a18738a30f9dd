"""Reading: sorting, searching, refusing what is no index, and staying light."""

import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from saelab.errors import UsageError
from saelab.features import cofiring, schema
from saelab.features.listing import Keep
from saelab.features.packing import unpack
from saelab.features.reader import FeatureIndex
from tests import toy_index as toy
from tests.features.test_build import dense_activations


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "features.db"
    toy.build(path)
    return path


@pytest.fixture
def opened(path):
    with FeatureIndex(path) as opened:
        yield opened


@pytest.mark.parametrize("sort", ["interest", "density", "mean", "max", "cosine"])
def test_pages_of_a_sorted_table_join_without_gaps(opened, sort):
    pages = [opened.table(sort, limit=7, offset=offset) for offset in range(0, toy.F, 7)]
    rows = [row for page in pages for row in page.rows]
    assert sorted(row.feature for row in rows) == list(range(toy.F))
    values = [getattr(row, sort) for row in rows if row.fired]
    assert values == sorted(values, reverse=True) != sorted(values)
    assert {page.total for page in pages} == {toy.F}
    assert [row.feature for row in rows] == opened.order(sort).tolist()


def test_interest_is_its_formula(opened):
    fired_F, mean_F = opened.arrays["fired"], opened.means()
    scale = mean_F[fired_F > 0].mean()
    for row in opened.table(limit=toy.F).rows:
        if not row.fired:
            assert row.interest == 0
            continue
        tokens = opened.arrays["entropy"][row.feature]
        breadth, support = np.log2(1 + 2**tokens), row.fired / (row.fired + 20)
        expected = row.mean / scale * np.log2(1 / row.density) * breadth * support
        assert row.interest == pytest.approx(expected)


def test_entropy_is_of_the_tokens_under_the_activation(opened):
    dense_CTF, tokens_CT = dense_activations()
    for feature in range(toy.F):
        on_CT = np.abs(dense_CTF[..., feature]).astype(np.float64)
        total_V = np.bincount(tokens_CT.ravel(), on_CT.ravel())
        share = total_V[total_V > 0] / max(total_V.sum(), 1e-9)
        entropy = float(-(share * np.log2(share)).sum())
        assert opened.arrays["entropy"][feature] == pytest.approx(entropy, abs=1e-6)


def test_lists_are_filtered(opened):
    rows = {row.feature: row for row in opened.table(limit=toy.F).rows}

    def kept(**fields):
        return {*opened.order(keep=Keep(**fields)).tolist()}

    middle = sorted(row.density for row in rows.values())[toy.F // 2]
    assert kept(density=(middle, 1)) == {n for n, row in rows.items() if row.density >= middle}
    assert kept(alive=False) == {toy.DEAD} == {*rows} - kept(alive=True)
    assert kept(sign=1) == kept(alive=True) and kept(sign=-1) == set()
    assert kept(numbers=[3, 1, 99, -1]) == {1, 3}
    assert kept(numbers=range(9), density=(middle, 1)) == kept(density=(middle, 1)) & {*range(9)}
    with pytest.raises(UsageError, match="no map: `saelab index RUN --map`"):
        kept(box=(0, 1, 0, 1))


def test_a_list_is_walked(opened):
    order = opened.order("max")
    first, second, last = (int(order[at]) for at in (0, 1, -1))
    assert opened.beside(first, order) == (None, second, 0, toy.F)
    assert opened.beside(second, order).previous == first
    assert opened.beside(last, order).next is None
    assert opened.beside(toy.DEAD, opened.order(keep=Keep(alive=True))) == (
        *(None, None, None),
        toy.F - 1,
    )


@pytest.mark.parametrize("signed", [False, True])
def test_features_that_fire_together_are_those_of_plain_counting(tmp_path, signed):
    toy.build(tmp_path / "features.db", signed=signed)
    dense_CTF, _ = dense_activations(signed)
    fired_NF = (dense_CTF[:, 1:].reshape(-1, toy.F) != 0).astype(np.int64)
    both_FF, n_F = fired_NF.T @ fired_NF, fired_NF.sum(0)
    with FeatureIndex(tmp_path / "features.db") as opened:
        assert opened.summary["cofiring_tokens"] == len(fired_NF)
        for feature in range(toy.F):
            both_F = both_FF[feature]
            jaccard_F = both_F / np.maximum(n_F + n_F[feature] - both_F, 1)
            told = opened.feature(feature).cofiring
            others = [g for g in range(toy.F) if g != feature and both_F[g] >= cofiring.LEAST]
            expected = sorted(others, key=lambda g: (-jaccard_F[g], g))[:8]
            assert [one.feature for one in told] == expected
            for one in told:
                chance = n_F[feature] * n_F[one.feature] / len(fired_NF)
                assert one.both == both_F[one.feature]
                assert one.jaccard == pytest.approx(jaccard_F[one.feature])
                assert one.pmi == pytest.approx(np.log2(one.both / chance), abs=1e-5)


def test_the_sample_of_firings_is_bounded_whatever_the_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(cofiring, "MOST", 2000)
    told = []
    for size in (1, 7):
        summary = toy.build(tmp_path / f"{size}.db", size=size)
        with FeatureIndex(tmp_path / f"{size}.db") as opened:
            told.append([opened.feature(feature).cofiring for feature in range(toy.F)])
        assert 300 < summary["cofiring_tokens"] * toy.K <= 2000
    assert told[0] == told[1]


def test_a_passage_shows_the_text_and_who_fires_there(opened):
    passages = opened.passages("cat sat")
    assert passages
    for passage in passages:
        words = "".join(passage.texts[number] for number in passage.matched)
        assert "cat" in words and "sat" in words
        for feature, peak in passage.features:
            places = {(example.context, example.value) for example in opened.examples(feature)}
            assert (passage.context, peak) in places
    assert any(passage.features for passage in passages)
    assert opened.passages("zebra") == []


def test_a_context_is_stored_once_with_its_examples(opened, path):
    examples = [e for feature in range(toy.F) for e in opened.examples(feature)]
    with sqlite3.connect(path) as connection:
        rows = connection.execute("select id, examples from context").fetchall()
    assert [number for number, _ in rows] == sorted({e.context for e in examples})
    stored = sum(len(unpack(blob, schema.PLACE)) for _, blob in rows)
    assert stored == len(examples) > len(rows)


def test_features_outside_the_dictionary_are_named(opened):
    for feature in (-1, toy.F):
        with pytest.raises(UsageError, match=rf"no feature {feature}: .* 0 to {toy.F - 1}"):
            opened.feature(feature)
        with pytest.raises(UsageError, match=f"no feature {feature}"):
            opened.examples(feature)


def test_an_unknown_sort_lists_the_sorts(opened):
    with pytest.raises(UsageError, match=r"no sort 'id; drop'.*density"):
        opened.table("id; drop")


def test_reading_never_writes(opened):
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        opened._stored.connection.execute("delete from feature")


def test_what_is_no_index_is_refused(tmp_path, path):
    with pytest.raises(UsageError, match="does not exist: `saelab index"):
        FeatureIndex(tmp_path / "features.db")
    text = tmp_path / "text.db"
    text.write_text("hello " * 1000)
    with pytest.raises(UsageError, match="not a feature index"):
        FeatureIndex(text)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("create table unrelated (x)")
    other.close()
    with pytest.raises(UsageError, match="not a feature index"):
        FeatureIndex(tmp_path / "other.db")


def test_another_version_is_refused_with_both_names(tmp_path, path):
    copy = tmp_path / "features.db"
    copy.write_bytes(path.read_bytes())
    connection = sqlite3.connect(copy)
    connection.execute("update meta set value = 'saelab/features/5' where key = 'schema'")
    connection.commit()
    connection.close()
    with pytest.raises(UsageError, match=r"saelab/features/5.*saelab/features/6.*saelab index"):
        FeatureIndex(copy)


def test_reading_loads_no_torch():
    code = "import sys, saelab.features.reader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
