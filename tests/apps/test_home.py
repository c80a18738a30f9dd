"""Users without a home."""

import os
from pathlib import Path

import pytest

from apps.cli import home, main
from saelab.kernels.cpu import remembered


def test_a_user_without_a_home_is_given_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def none(path: Path) -> Path:
        if str(path).startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    tmp_path.chmod(0o700)
    monkeypatch.setenv("HOME", "unset afterwards")
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", none)
    monkeypatch.setattr(remembered.tempfile, "gettempdir", lambda: str(tmp_path))
    home.give_home()
    assert os.environ["HOME"] == str(tmp_path / f"saelab-{os.getuid()}")
    assert main(["eval"]) == 2  # it goes on to what is wrong


def test_a_home_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    home.give_home()
    assert os.environ["HOME"] == str(tmp_path)
