"""An index that was damaged: SQLite finds what breaks its structure, the digest everything."""

import sqlite3
from pathlib import Path

import pytest

from saelab import digests
from saelab.errors import FailedRun
from saelab.features import file
from saelab.features.reader import FeatureIndex
from tests import toy_index


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An index that may be damaged."""
    toy_index.build(tmp_path / "features.db")
    return tmp_path / "features.db"


def test_a_value_that_changed_is_found_by_the_digest_alone(path: Path):
    whole = path.read_bytes()
    assert file.is_right(path) is True
    with FeatureIndex(path) as opened:
        assert digests.FIELD not in opened.summary
    at = whole.index(b'"blocks.')  # a text of the index's facts
    path.write_bytes(whole[: at + 1] + b"c" + whole[at + 2 :])
    assert file.is_right(path) is False
    FeatureIndex(path).close()  # SQLite has no checksum: it sees nothing


def test_a_broken_page_is_refused_when_the_index_is_opened(path: Path):
    with sqlite3.connect(path) as connection:
        sql = "select rootpage from sqlite_master where name = 'example'"
        page = connection.execute(sql).fetchone()[0]
        size = connection.execute("pragma page_size").fetchone()[0]
    connection.close()
    whole = path.read_bytes()
    start = (page - 1) * size
    path.write_bytes(whole[: start + 8] + bytes(200) + whole[start + 208 :])
    with pytest.raises(FailedRun, match=r"features\.db is damaged \(.*\): run `saelab index RUN`"):
        FeatureIndex(path)


def test_an_index_without_a_digest_still_opens(path: Path):
    with sqlite3.connect(path) as connection:
        connection.execute("delete from meta where key = ?", (digests.FIELD,))
    connection.close()
    assert file.is_right(path) is None
    FeatureIndex(path).close()
