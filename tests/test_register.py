"""A source and a format from outside work as the built-in ones do, and no name is given twice."""

from pathlib import Path

import pytest

import saelab
from saelab import formats
from saelab.activations import sources
from saelab.errors import UsageError
from tests.activations.test_source import Lines


@pytest.fixture(autouse=True)
def gone_after_the_test(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(formats, "FORMATS", dict(formats.FORMATS))
    monkeypatch.setattr(sources, "_registered", {})


def test_a_source_from_outside_fills_a_cache(tmp_path: Path):
    saelab.register("source", "lines", Lines)
    cache = saelab.Cache.write(tmp_path / "cache", "lines", n_contexts=40)
    assert cache.hooks == ["line"] and cache.n_tokens() > 0
    with pytest.raises(UsageError, match="there is a source 'lines' already"):
        saelab.register("source", "lines", Lines)
    with pytest.raises(UsageError, match="there is a source 'text' already"):
        saelab.register("source", "text", Lines)


def test_a_format_from_outside_is_loaded(tmp_path: Path):
    small = saelab.SAE(4, 8, saelab.Choice(2))
    row = saelab.Format("small", "small.sae", lambda p: p.suffix == ".sae", lambda p: small)
    saelab.register("format", row)
    (tmp_path / "small.sae").touch()
    assert saelab.SAE.load(tmp_path / "small.sae") is small
    with pytest.raises(UsageError, match="there is a format 'small' already"):
        saelab.register("format", row)


def test_another_kind_is_refused():
    with pytest.raises(UsageError, match="no kind 'page' to register; there are metric, source"):
        saelab.register("page", "mine")
