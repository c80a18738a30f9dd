"""Texts stream: ten times the text takes the same memory to read, which reading it whole would
not."""

import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from saelab.activations.text import Text
from saelab.documents import Document

TEXT = "some words of a text, and more of them. " * 100
KINDS: dict[str, Callable[[int], str]] = {
    "a.json": lambda n: json.dumps([{"text": TEXT, "n": i} for i in range(n)]),
    "a.jsonl": lambda n: "\n".join(json.dumps({"text": TEXT}) for _ in range(n)),
    "a.csv": lambda n: "n,text\n" + "\n".join(f'{i},"{TEXT}"' for i in range(n)),
    "a.txt": lambda n: "\n\n".join([TEXT] * n),
}


def whole(path: Path) -> Iterator[Document]:
    """The known-bad twin: a reader that holds the file."""
    text = path.read_text()
    for at in range(0, len(text), len(TEXT)):
        piece = text[at : at + len(TEXT)]
        yield Document(str(at), piece, piece)


def peak(documents: Iterator[Document]) -> int:
    """Bytes that Python holds at most while the documents are read."""
    tracemalloc.start()
    for _ in documents:
        pass
    size = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return size


@pytest.mark.parametrize("name", KINDS)
def test_ten_times_the_text_takes_the_same_memory(tmp_path: Path, name: str):
    sizes, twin = [], []
    for n in (100, 100, 1000):  # the first reads what is imported and cached
        path = tmp_path / name
        path.write_text(KINDS[name](n))
        sizes.append(peak(Text(str(path)).documents()))
        twin.append(peak(whole(path)))
    assert sizes[2] < 1.05 * sizes[1]
    assert twin[2] > 5 * twin[1]


def test_a_row_group_of_parquet_is_not_held(tmp_path: Path):
    path, pool, sizes = tmp_path / "a.parquet", pyarrow.default_memory_pool(), []
    letters = [f"{i} {TEXT}" for i in range(10_000)]
    for n in (1000, 10_000):
        rows = pyarrow.table({"text": letters[:n]})
        pyarrow.parquet.write_table(rows, path, use_dictionary=False, compression="none")
        del rows
        before = pool.bytes_allocated()
        sizes.append(max(pool.bytes_allocated() - before for _ in Text(str(path)).documents()))
    assert pyarrow.parquet.ParquetFile(path).num_row_groups == 1
    held = pool.bytes_allocated()
    table = pyarrow.parquet.read_table(path)
    assert sizes[1] < 1.05 * sizes[0] < 0.5 * (pool.bytes_allocated() - held)
    assert table.num_rows == 10_000
