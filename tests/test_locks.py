"""One writer to a folder, and what killed ones leave behind."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from saelab import files, locks
from saelab.errors import UsageError
from tests.killing import run as run_in_fork


def test_a_second_writer_is_refused_until_the_first_ends(tmp_path: Path):
    folder = tmp_path / "new" / "folder"
    with locks.only_writer(folder):
        assert (folder / locks.NAME).read_text().startswith(f"{os.getpid()} on ")
        with pytest.raises(UsageError, match=f"written by process {os.getpid()} on .*: wait for"):
            locks.only_writer(folder).__enter__()
    assert list(tmp_path.iterdir()) == []
    with locks.only_writer(folder):
        (folder / "kept").touch()
    assert [path.name for path in folder.iterdir()] == ["kept"]


def test_a_lock_ends_with_its_process(tmp_path: Path):
    def die() -> None:
        with locks.only_writer(tmp_path):
            os._exit(1)

    run_in_fork(die)
    assert (tmp_path / locks.NAME).is_file()
    with locks.only_writer(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_locked_and_then_removed_locks_nothing(tmp_path: Path, monkeypatch):
    """Between opening a lock and taking it, its holder may have removed it."""
    path, opened = tmp_path / "lock", []

    def open_late(*args: Any) -> int:
        descriptor = os_open(*args)
        if not opened:
            path.unlink()
        opened.append(descriptor)
        return descriptor

    os_open = os.open
    monkeypatch.setattr(os, "open", open_late)
    descriptor = locks.take(path)
    assert len(opened) == 2 and os.path.samestat(os.fstat(descriptor), path.stat())
    os.close(descriptor)


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path: Path, monkeypatch):
    def refuse(*_: int) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locks.only_writer(tmp_path), locks.only_writer(tmp_path):
        files.write_json(tmp_path / "a.json", [1])


def dying(folder: Path) -> None:
    """Write a file and die before it is renamed."""

    def write(temporary: Path) -> None:
        save_file({"a": torch.zeros(3)}, temporary)
        (temporary.parent / ".tmpXYZXYZ").touch()  # as safetensors has on the way
        os._exit(1)

    files.write_atomic(folder / "a.safetensors", write)


def test_what_a_killed_writer_left_is_swept_by_the_next_of_that_file(tmp_path: Path):
    run_in_fork(lambda: dying(tmp_path))
    (left,) = tmp_path.iterdir()
    assert files.is_trace(left.name) and left.is_dir()
    files.write_json(tmp_path / "b.json", [])
    assert left.exists()
    files.write_atomic(tmp_path / "a.safetensors", lambda path: path.write_text("whole"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.json"]


def test_sweeping_a_folder_spares_files_and_living_writers(tmp_path: Path):
    (tmp_path / ".b.json.123.tmp").touch()  # as versions before this one left
    (tmp_path / ".tmpAbCdEf").touch()
    (tmp_path / ".mine").touch()

    def write(temporary: Path) -> None:
        temporary.write_text("whole")
        files.sweep(tmp_path)

    files.write_atomic(tmp_path / "a", write)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", "a"]


def test_a_sweep_that_spares_nobody_would_be_caught(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(files, "_remove_left", files._remove)
    with pytest.raises(FileNotFoundError):
        test_sweeping_a_folder_spares_files_and_living_writers(tmp_path)
