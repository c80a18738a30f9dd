"""What tests share stays as it was made."""

from pathlib import Path

import pytest

from tests.conftest import read_only


def test_a_folder_that_was_only_read_passes_and_one_that_was_written_into_is_caught(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.json").write_text("{}")
    for written, caught in ((None, False), ("new.json", True), ("report.json", True)):
        shared = read_only(tmp_path)
        next(shared)
        if written:
            (tmp_path / "run" / written).write_text("of one test")
        with pytest.raises(AssertionError if caught else StopIteration, match=written):
            next(shared)
