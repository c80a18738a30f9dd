"""Reading: sorting, searching, refusing what is no index, and staying light."""

import sqlite3
import subprocess
import sys

import pytest

from saelab.errors import UsageError
from saelab.features import search
from saelab.features.reader import FeatureIndex
from tests import toy_index as toy


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "features.db"
    toy.build(path)
    return path


@pytest.fixture
def opened(path):
    with FeatureIndex(path) as opened:
        yield opened


@pytest.mark.parametrize("sort", ["density", "mean", "max", "cosine"])
def test_pages_of_a_sorted_table_join_without_gaps(opened, sort):
    pages = [opened.table(sort, limit=7, offset=offset) for offset in range(0, toy.F, 7)]
    rows = [row for page in pages for row in page.rows]
    assert sorted(row.feature for row in rows) == list(range(toy.F))
    values = [getattr(row, sort) for row in rows if row.fired]
    assert values == sorted(values, reverse=True) != sorted(values)
    assert {page.total for page in pages} == {toy.F}


def brute_force(opened, text):
    """Features with an example that holds every word of `text` in its window, or with it in a
    strong token."""
    found = {}
    for feature in range(toy.F):
        token = any(text in token.text.casefold() for token in opened.feature(feature).by_total)
        count = 0
        for example in opened.examples(feature):
            first = max(0, example.position - search.BEFORE)
            starts = (
                "".join(example.texts[:first]).casefold(),
                "".join(example.texts[: example.position + search.AFTER + 1]),
            )
            window = "".join(example.texts).casefold()
            spans = [
                [at for at in range(len(window)) if window.startswith(word, at)]
                for word in text.split()
            ]
            count += all(
                any(len(starts[0]) <= at < len(starts[1]) for at in span) for span in spans
            )
        if token or count:
            found[feature] = (token, count)
    return found


@pytest.mark.parametrize(
    "text",
    ["cat", "numpy", "naïve cat sat mat", "(cat x", "SCRIPT", "quoted", "zebra", "ïv", "x", "f"],
)
def test_search_finds_what_brute_force_finds(opened, text):
    assert opened.search(text) == brute_force(opened, text.casefold())


def test_the_search_checker_notices_a_narrower_window(opened, monkeypatch):
    expected = brute_force(opened, "cat")
    monkeypatch.setattr(search, "BEFORE", search.BEFORE - 1)
    assert opened.search("cat") != expected


@pytest.mark.parametrize(
    "text", ["(", "$x^2$", "`co", "<b", '"', "'; drop table token; --", "* NOT (", "\n"]
)
def test_punctuation_is_text_not_syntax(opened, text):
    assert set(opened.tokens(text)) == {word for word in toy.TEXTS if text.lower() in word.lower()}
    opened.table(search=text)


def test_a_search_ranks_strong_tokens_first_and_counts_hits(opened):
    table = opened.table("matches", search="cat", limit=1000)
    hits = [row.hit for row in table.rows]
    assert hits == sorted(hits, reverse=True)
    assert table.total == len(hits) < toy.F + 1
    assert hits[0].token
    assert opened.table(search="zebra").total == 0


def test_a_passage_shows_the_text_and_who_fires_there(opened):
    passages = opened.passages("cat sat")
    assert passages
    for passage in passages:
        words = "".join(passage.texts[number] for number in passage.matched)
        assert "cat" in words and "sat" in words
        for feature, peak in passage.features:
            peaks = {(example.context, example.peak) for example in opened.examples(feature)}
            assert (passage.context, peak) in peaks
    assert any(passage.features for passage in passages)
    assert opened.passages("zebra") == []


def test_a_context_is_stored_once(opened, path):
    with sqlite3.connect(path) as connection:
        used = connection.execute(
            "select count(distinct context), count(*) from example"
        ).fetchone()
        stored = connection.execute("select count(*) from context").fetchone()[0]
    assert stored == used[0] < used[1]


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
        opened._connection.execute("delete from feature")


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
    connection.execute("update meta set value = 'saelab/features/0' where key = 'schema'")
    connection.commit()
    connection.close()
    with pytest.raises(UsageError, match=r"saelab/features/0.*saelab/features/3.*saelab index"):
        FeatureIndex(copy)


def test_reading_loads_no_torch():
    code = "import sys, saelab.features.reader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
