"""Further contexts on a feature's page: read from the cache in the background, and told where they
cannot be."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from apps.browser import PLACES, further
from saelab import SAE
from saelab.activations import Cache
from saelab.features import build
from saelab.features.more import examples
from saelab.features.reader import FeatureIndex
from saelab.runs import RunFolder
from tests.apps.pages import opened_page
from tests.apps.test_browse import body
from tests.conftest import HOOK


@pytest.fixture(scope="module")
def runs(tiny_run: Path, tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An indexed run, and the same run whose cache is not where it was."""
    root = tmp_path_factory.mktemp("further")
    sae = SAE.load(tiny_run)
    for name, cache in (("own", tiny_cache), ("lost", root / "gone")):
        sae.origin = replace(sae.origin, cache=str(cache))
        sae.save(root / name / "sae")
    index, digest = root / "own" / "features.db", RunFolder(root / "own").sae_digest()
    build.build(sae, Cache(tiny_cache), HOOK, index, tokenizer=None, digest=digest)
    shutil.copy(index, root / "lost")
    return root


@pytest.fixture(scope="module")
def known(runs: Path) -> int:
    """A feature that fires beyond the contexts of the index."""
    with FeatureIndex(runs / "own" / "features.db") as index:
        return next(f for f in range(index.n_features) if len(index.places(f)) > 2)


def ended(folder: Path, feature: int, n: int):
    """The end of the reading."""
    until = time.monotonic() + 60
    while not (told := further.wanted(folder, feature, n)).done:
        assert time.monotonic() < until, told
        time.sleep(0.02)
    return told


def test_they_are_what_the_cache_holds(runs: Path, known: int, tiny_cache: Path):
    told = ended(runs / "own", known, 3)
    with FeatureIndex(runs / "own" / "features.db") as index:
        sae = SAE.load(runs / "own")
        assert told.result == examples(sae, Cache(tiny_cache), index, known, 3)
        assert told.result != examples(sae, Cache(tiny_cache), index, known, 2)  # known-bad twin
    assert len(told.result or ()) == 3 and told.problem == ""


def test_the_page_reads_them_by_a_click(runs: Path, known: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(PLACES, json.dumps([str(runs)]))
    for name, said in (("own", "Further contexts"), ("lost", "No further contexts: ")):
        page = opened_page("feature", run=name, feature=str(known))
        assert said not in body(page)
        next(one for one in page.button if "from the cache" in one.label).click().run()
        with FeatureIndex(runs / name / "features.db") as index:
            n = min(10, len(index.places(known)))
        ended(runs / name, known, n)
        shown = body(page.run())
        assert said in shown and "Top contexts" in shown
        assert ("gone" in shown) == (name == "lost")
