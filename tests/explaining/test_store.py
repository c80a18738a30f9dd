"""A run's explanations.db: written, read, searched; of another SAE, another version, damaged."""

import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from saelab.errors import FailedRun, UsageError
from saelab.explaining import store
from saelab.explaining.records import RULES, Explanation
from saelab.statistics import Estimate

ONE = Explanation('on "self"', Estimate(0.9, 0.8, 0.95, 0.5), kind="token", cells=1, recall=0.8)
TWO = Explanation("+: on digits", Estimate(None), opposite=ONE._replace(text='−: on "İß"'))


def run(path: Path, digest: str | None = "a" * 64) -> store.Run:
    return SimpleNamespace(explanations=path / "explanations.db", sae_digest=lambda: digest)


@pytest.fixture
def here(tmp_path):
    made = run(tmp_path)
    store.write(made.explanations, "a" * 64, RULES, {3: ONE, 7: TWO}, {"live": 2})
    return made


def test_what_is_written_is_read(here):
    assert store.explanations(here) == {3: ONE, 7: TWO}
    assert store.of_feature(here, 7) == [TWO] and store.of_feature(here, 8) == []
    assert store.facts(here) == {RULES: {"live": 2}}
    assert store.is_right(here.explanations)


def test_a_text_is_found_also_in_the_other_sign(here):
    assert set(store.search(here, "SELF")) == {3}
    assert set(store.search(here, "ß")) == {7}
    assert store.search(here, "nowhere") == {}


def test_methods_stand_side_by_side_and_a_subset_replaces_only_its_own(here):
    words = ONE._replace(text="a closing bracket", method="gpt", kind="")
    store.write(here.explanations, "a" * 64, "gpt", {3: words}, {"live": 1})
    assert store.of_feature(here, 3) == [ONE, words]
    again = words._replace(text="brackets")
    store.write(here.explanations, "a" * 64, "gpt", {5: again}, {"live": 1})
    assert store.explanations(here, "gpt") == {3: words, 5: again}
    assert store.explanations(here) == {3: ONE, 7: TWO}


def test_those_of_an_earlier_sae_are_not_shown_and_go_when_it_is_explained_anew(here, tmp_path):
    other = run(tmp_path, "b" * 64)
    assert store.explanations(other) == {} and store.facts(other) == {}
    store.write(other.explanations, "b" * 64, "gpt", {1: ONE}, {})
    assert store.explanations(here) == {}
    assert store.explanations(other) == {} and store.explanations(other, "gpt") == {1: ONE}


def test_no_file_is_no_explanation(tmp_path):
    assert store.explanations(run(tmp_path)) == {} == store.search(run(tmp_path), "x")


def test_another_version_and_a_damaged_file_are_told(here):
    with sqlite3.connect(here.explanations) as connection:
        connection.execute("update meta set value = 'saelab/explanations/9' where key = 'schema'")
    with pytest.raises(UsageError, match="schema 'saelab/explanations/9', this version reads"):
        store.explanations(here)
    with sqlite3.connect(here.explanations) as connection:
        connection.execute("update meta set value = ? where key = 'schema'", (store.SCHEMA,))
        connection.execute("update explanation set record = '{}' where feature = 3")
    with pytest.raises(FailedRun, match="damaged"):
        store.explanations(here)
    here.explanations.write_bytes(b"not a database" * 100)
    with pytest.raises(FailedRun, match=r"damaged.*run `saelab explain RUN` again"):
        store.of_feature(here, 3)
    store.write(here.explanations, "a" * 64, RULES, {3: ONE}, {})
    assert store.explanations(here) == {3: ONE}
