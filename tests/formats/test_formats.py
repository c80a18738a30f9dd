"""The table of forms: what is recognised, what is refused, and how a form is added."""

import re
from pathlib import Path

import pytest

from saelab import SAE, Choice, formats
from saelab.errors import UsageError
from saelab.formats import Format


@pytest.fixture
def form(monkeypatch: pytest.MonkeyPatch) -> Format:
    """A form of one file, added for the length of a test."""
    monkeypatch.setattr(formats, "FORMATS", dict(formats.FORMATS))
    made = Format("dummy", "x.dummy", lambda path: path.suffix == ".dummy", lambda path: new())
    formats.register(made)
    return made


def new() -> SAE:
    """A small SAE."""
    return SAE(4, 8, Choice(2))


def test_a_form_that_is_added_is_read_through_the_same_door(form: Format, tmp_path: Path):
    (tmp_path / "x.dummy").touch()
    assert SAE.load(tmp_path / "x.dummy").n_features == 8
    with pytest.raises(UsageError, match="there is a format 'dummy' already"):
        formats.register(form)
    with pytest.raises(UsageError, match="no format 'dummy' to write; there are saelab"):
        formats.save(new(), tmp_path / "y", "dummy")


def test_what_no_form_knows_is_refused_with_what_was_seen(form: Format, tmp_path: Path):
    rows = [f"{row.name} ({row.files})" for row in formats.FORMATS.values()]
    assert rows[-1] == "dummy (x.dummy)"
    known = re.escape(f"; known are {', '.join(rows)}")
    with pytest.raises(UsageError, match="holds no SAE: it is empty" + known):
        SAE.load(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"1234")
    with pytest.raises(UsageError, match=r"holds no SAE: it has weights\.bin" + known):
        SAE.load(tmp_path)
    with pytest.raises(UsageError, match="it is a file of 4 bytes" + known):
        SAE.load(tmp_path / "weights.bin")
    (tmp_path / "config.yaml").touch()
    with pytest.raises(UsageError, match="its training has not finished"):
        SAE.load(tmp_path)
    with pytest.raises(
        UsageError, match="none holds no SAE: there is no such folder; name one that"
    ):
        SAE.load(tmp_path / "none")


def test_our_own_form_is_read_from_a_run_and_from_its_inside(tmp_path: Path):
    new().save(tmp_path / "sae")
    assert SAE.load(tmp_path).d_model == SAE.load(str(tmp_path / "sae")).d_model == 4
