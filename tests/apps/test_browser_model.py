"""Models loaded in the background: once for all who want it, with what went wrong told."""

import threading
import time
from pathlib import Path

import pytest

from apps.browser import asking, model
from apps.browser.exports import prompt_files
from saelab import models
from saelab.errors import UsageError


def ready(folder: Path, place: str | None = None, seconds: float = 60) -> model.Loading:
    """The end of the loading."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        told = model.wanted(folder, place)
        if told.bench or told.problem:
            return told
        time.sleep(0.02)
    raise AssertionError(f"not loaded in {seconds} s: {told}")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are read."""
    names, real = [], models.load

    def load(name, *args, **options):
        names.append(str(name))
        return real(name, *args, **options)

    monkeypatch.setattr(models, "load", load)
    model._models.clear()
    model._works.clear()
    return names


def test_a_model_is_loaded_once_for_all_who_want_it(tiny_run: Path, loads: list[str]):
    first = model.wanted(tiny_run)
    assert first.bench is None and first.stage  # the page is not kept waiting
    asked = [threading.Thread(target=model.wanted, args=(tiny_run,)) for _ in range(8)]
    for thread in asked:
        thread.start()
    done = ready(tiny_run)
    assert done.bench is not None and done.problem == "" and len(loads) == 1
    assert ready(tiny_run).bench is done.bench


def test_a_model_that_is_elsewhere_is_told_and_may_be_named(
    tiny_run: Path, tiny_model: Path, tmp_path: Path, loads: list[str]
):
    nowhere = ready(tiny_run, str(tmp_path / "gone"))
    assert nowhere.bench is None and "gone" in nowhere.problem
    n_tries = len(loads)
    assert ready(tiny_run, str(tmp_path / "gone")) and len(loads) == n_tries  # no endless tries
    assert ready(tiny_run, str(tiny_model)).bench is not None
    model.again(tiny_run, str(tmp_path / "gone"))
    assert ready(tiny_run, str(tmp_path / "gone")).problem and len(loads) > n_tries


def test_another_model_is_refused_by_name(tiny_run: Path, tmp_path: Path, loads: list[str]):
    from tests.conftest import make_model

    other = make_model(tmp_path / "other", seed=1)
    assert "is another model" in ready(tiny_run, str(other)).problem


def test_a_run_without_an_sae_says_so(tmp_path: Path, loads: list[str]):
    assert ready(tmp_path).problem and not loads


def test_answers_are_kept_and_go_when_their_run_goes(tiny_run: Path, loads: list[str]):
    key = ready(tiny_run).key
    first = asking.reading(key, "alpha")
    assert asking.reading(key, "alpha") is first
    assert [one.chance for one in asking.likely(key, "alpha", 3)] == sorted(
        (one.chance for one in asking.likely(key, "alpha", 3)), reverse=True
    )
    model._works.clear()
    with pytest.raises(UsageError, match="has been put away for other runs meanwhile"):
        asking.reading(key, "alpha")
    assert asking.reading(ready(tiny_run).key, "alpha") is not first


def test_a_text_is_saved_with_all_its_pairs_and_as_a_page_by_itself(
    tiny_run: Path, loads: list[str]
):
    key = ready(tiny_run).key
    reading = asking.reading(key, "alpha <b>", "integrated")
    tokens, pairs = prompt_files.tables(reading, None)
    assert (tokens.name, pairs.name) == prompt_files.NAMES
    assert "".join(row["token"] for row in tokens.rows[1:]) == "alpha <b>"
    assert tokens.rows[0]["loss"] is None and reading.read.loss is not None
    assert [row["loss"] for row in tokens.rows[1:]] == reading.read.loss.tolist()
    assert [row["effect"] for row in pairs.rows] == reading.table.effect.tolist()
    assert len(pairs.rows) == len(reading.table.feature) > 9
    page = prompt_files.one("tiny", reading, None, {}, "effect")
    assert "data-page" not in page and "<b>" not in page.split("<body")[1]
    assert page.count("<tr>") == 1 + len(pairs.rows)  # head and rows


@pytest.mark.parametrize("words", ["x", "3:clamp:a", ","])
def test_edits_that_no_address_holds_are_refused(words: str):
    steps = asking.steps_of("17:clamp:8,5:ablate", 3, 0.0, 0)
    assert steps.edits == ((17, "clamp", 8.0), (5, "ablate", 0.0))
    with pytest.raises(UsageError, match="no edit such as"):
        asking.steps_of(words, 3, 0.0, 0)
