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


def broken(path: Path, table: str) -> None:
    """Spoil the head of a table's first page, whose rows then cannot be read."""
    with sqlite3.connect(path) as connection:
        sql = "select rootpage from sqlite_master where name = ?"
        page = connection.execute(sql, (table,)).fetchone()[0]
        size = connection.execute("pragma page_size").fetchone()[0]
    connection.close()
    whole = path.read_bytes()
    start = (page - 1) * size
    path.write_bytes(whole[: start + 8] + bytes(200) + whole[start + 208 :])


def test_a_broken_page_is_refused_when_the_index_is_opened(path: Path):
    broken(path, "feature")
    with pytest.raises(FailedRun, match=r"features\.db is damaged \(.*\): run `saelab index RUN`"):
        FeatureIndex(path)


@pytest.mark.parametrize(
    ("table", "column", "ask"),
    [
        ("feature", "pairs", lambda index: index.examples(3)),
        ("feature", "tokens", lambda index: index.feature(3)),
        ("context", "tokens", lambda index: index.examples(3)),
        ("context", "examples", lambda index: index.search("cat", ["contexts"])),
    ],
)
def test_a_list_that_cannot_be_unpacked_is_named_when_it_is_read(path: Path, table, column, ask):
    with FeatureIndex(path) as opened:
        assert ask(opened)
    with sqlite3.connect(path) as connection:
        rows = connection.execute(f"select id, {column} from {table}").fetchall()
        # The last bytes are the sum over what was packed.
        spoiled = [(blob[:-1] + bytes([blob[-1] ^ 1]), number) for number, blob in rows if blob]
        connection.executemany(f"update {table} set {column} = ? where id = ?", spoiled)
    connection.close()
    with FeatureIndex(path) as opened, pytest.raises(FailedRun, match=r"damaged \(a list cannot"):
        ask(opened)


@pytest.mark.parametrize(
    ("table", "ask"),
    [
        ("feature", lambda index: index.feature(3)),
        ("feature", lambda index: index.examples(3)),
        ("array", lambda index: index.table()),
        ("token", lambda index: index.search("cat")),
        ("context", lambda index: index.passages("cat")),
    ],
)
def test_of_a_large_index_damage_is_told_where_it_is_read(path: Path, monkeypatch, table, ask):
    monkeypatch.setattr(file, "CHECKED", 0)
    broken(path, table)
    with FeatureIndex(path) as opened, pytest.raises(FailedRun, match=r"is damaged.*index RUN"):
        ask(opened)


@pytest.mark.parametrize("checked", [0, file.CHECKED])
@pytest.mark.parametrize("left", [0.3, 0.99])
def test_a_file_that_was_cut_is_refused(path: Path, monkeypatch, checked: int, left: float):
    monkeypatch.setattr(file, "CHECKED", checked)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * left)])
    said = r"is damaged \(it was cut: .* bytes instead of .*saelab index RUN"
    with pytest.raises(FailedRun, match=said):
        FeatureIndex(path)


def test_an_index_without_a_digest_still_opens(path: Path):
    with sqlite3.connect(path) as connection:
        connection.execute("delete from meta where key = ?", (digests.FIELD,))
    connection.close()
    assert file.is_right(path) is None
    FeatureIndex(path).close()
