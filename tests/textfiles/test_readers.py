"""Local text: one kind of data under any name, case or compression; what is left out is counted,
what is damaged is named."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from saelab import textfiles
from saelab.activations.text import Text
from saelab.errors import UsageError
from saelab.textfiles import Skipped, values

TEXTS = [
    "One day a cat sat.",
    'Two "dogs", 3 birds;\nand a\ttab',
    "naïve 😀 日本語",
    "four \u2028 five",
]


def rows(delimiter: str) -> bytes:
    """A table with the text in its middle column."""
    file = io.StringIO()
    table = csv.writer(file, delimiter=delimiter)
    table.writerow(["id", "text", "label"])
    table.writerows([i, text, "LABEL"] for i, text in enumerate(TEXTS))
    return file.getvalue().encode()


def parquet(**options) -> bytes:
    """A Parquet file of the texts."""
    sink = pyarrow.BufferOutputStream()
    table = pyarrow.table({"text": TEXTS, "n": [*range(len(TEXTS))]})
    pyarrow.parquet.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


OBJECTS = [{"n": i, "text": text, "more": {"text": "no"}} for i, text in enumerate(TEXTS)]
LINES = "\n".join(map(json.dumps, OBJECTS)).encode()
ARRAY = json.dumps(OBJECTS, ensure_ascii=False).encode()
INDENTED = json.dumps(OBJECTS, indent=2).encode()
PRETTY = "\n".join(json.dumps(one, indent=1) for one in OBJECTS).encode()


def zstandard(raw: bytes) -> bytes:
    """Two frames of zstandard, as `pzstd` writes them."""
    half = len(raw) // 2
    parts = (
        pyarrow.compress(part, codec="zstd", asbytes=True) for part in (raw[:half], raw[half:])
    )
    return b"".join(parts)


SAME = {
    "a.jsonl": LINES,
    "a.JSONL": LINES,
    "a.ndjson": LINES,
    "A.NDJSON": LINES,
    "a.json": LINES,
    "array.jsonl": ARRAY,
    "array.json": ARRAY,
    "indented.Json": INDENTED,
    "pretty.json": PRETTY,
    "bom.jsonl": b"\xef\xbb\xbf" + LINES,
    "crlf.jsonl": LINES.replace(b"\n", b"\r\n") + b"\r\n\r\n",
    "a.jsonl.gz": gzip.compress(LINES),
    "a.JSON.GZ": gzip.compress(ARRAY),
    "two.jsonl.gz": gzip.compress(LINES + b"\n") + gzip.compress(b"\n"),
    "a.jsonl.bz2": bz2.compress(LINES),
    "a.jsonl.xz": lzma.compress(LINES),
    "a.jsonl.lzma": lzma.compress(LINES, lzma.FORMAT_ALONE),
    "a.jsonl.zst": zstandard(LINES),
    "packed but not called so.jsonl": gzip.compress(LINES),
    "nameless": LINES,
    "nameless and packed": zstandard(ARRAY),
    "dump.unknown": parquet(),
    "a.csv": rows(","),
    "A.CSV": b"\xef\xbb\xbf" + rows(","),
    "a.csv.gz": gzip.compress(rows(",")),
    "a.tsv": rows("\t"),
    "a.TSV.xz": lzma.compress(rows("\t")),
    "a.parquet": parquet(),
    "A.PARQUET": parquet(compression="gzip", use_dictionary=False),
    "rows.pq": parquet(row_group_size=1),
}


@pytest.mark.parametrize("name", SAME)
def test_data_of_one_kind_is_read_under_any_name_case_or_compression(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(SAME[name])
    documents = [*Text(str(tmp_path / name)).documents()]
    assert [one.text for one in documents] == TEXTS
    assert [one.name for one in documents] == [f"{name}#{i}" for i in range(len(TEXTS))]


@pytest.mark.parametrize("window", [1, 2, 7, 100])
def test_values_do_not_depend_on_where_a_window_ends(window: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(values, "WINDOW", window)
    several = [*OBJECTS, 12345, -1.5e-10, "s\\u00e9\ud83d", None, [True, {}], {"x": 1e5}]
    for text in (
        json.dumps(several),
        json.dumps(several, indent=2),
        "\n".join(map(json.dumps, several)),
        " \r\n".join(json.dumps(one, indent=1) for one in several) + "\n",
    ):
        assert [*values.values(io.StringIO(text))] == several
    assert [*values.values(io.StringIO("[ ] \n"))] == []


def test_folders_of_save_to_disk_are_read_by_their_rows(tmp_path: Path):
    import datasets

    one = datasets.Dataset.from_dict({"text": [*TEXTS, None], "n": [*range(5)]})
    one.save_to_disk(str(tmp_path / "one"))
    both = datasets.DatasetDict({"train": one.select([3, 1]), "test": one})
    both.save_to_disk(str(tmp_path / "both"))
    skipped = Skipped()
    assert [d.text for d in Text(str(tmp_path / "one")).documents(skipped=skipped)] == TEXTS
    assert skipped.records.total() == 1
    assert [d.text for d in Text(str(tmp_path / "both")).documents()] == [TEXTS[3], TEXTS[1]]
    inside = {d.name for d in Text(str(tmp_path)).documents()}  # a corpus that holds them
    assert {"one#0", "both#1"} <= inside and len(inside) == 6
    with pytest.raises(UsageError, match=r"both has no text field 'body'; its fields are text, n"):
        [*Text(str(tmp_path / "both"), "body").documents()]


def test_folders_are_followed_through_links_but_not_in_circles(tmp_path: Path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.TXT.gz").write_bytes(gzip.compress(b"linked"))
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "corpus" / "circle").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus" / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "other").symlink_to(tmp_path / "corpus")
    for root in ("corpus", "other"):
        documents = [*Text(str(tmp_path / root)).documents()]
        assert [(d.name, d.text) for d in documents] == [("link/a.TXT.gz", "linked")]


def test_records_without_a_text_are_left_out_and_counted(tmp_path: Path):
    half = '{"text": "half an emoji \\ud83d and more"}'
    lines = [json.dumps({"text": text}) for text in TEXTS]
    lines[1:1] = ['{"text": null}', half, "null", '{"text": "  "}', '{"text": null}']
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    skipped = Skipped()
    documents = [*Text(str(path)).documents(skipped=skipped)]
    assert [one.text for one in documents] == TEXTS
    assert [one.name[-2:] for one in documents] == ["#0", "#6", "#7", "#8"]
    assert sorted(skipped.records.values()) == [1, 3] and len(skipped.lines()) == 2
    with pytest.raises(UsageError, match=r"a\.jsonl#1 has no text \(null\)"):
        [*Text(str(path), strict=True).documents()]
    path.write_text(half + "\n" + lines[0])
    with pytest.raises(UsageError, match=r"a\.jsonl#0 holds half a character"):
        [*Text(str(path), strict=True).documents()]


def test_a_bad_file_among_many_is_named_and_left_out(tmp_path: Path):
    for i in range(20):
        (tmp_path / f"{i}.txt").write_text(f"text {i}")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(LINES)[:-9])
    (tmp_path / "package.json").write_text('{"name": "no corpus"}')
    skipped = Skipped()
    documents = [*Text(str(tmp_path)).documents(skipped=skipped)]
    whole = [one for one in documents if one.name.endswith(".txt")]
    assert len(whole) == 20 and len(skipped.files) == 3
    named = " ".join(skipped.files)
    assert "latin.txt is not UTF-8: byte 0xe9 at offset 3" in named
    assert "cut.jsonl.gz cannot be read" in named and "package.json record 0 has no text" in named
    assert skipped.notes()["skipped"]["files"] == skipped.files
    assert all(line.startswith("left out: ") for line in skipped.lines())
    with pytest.raises(UsageError, match=r"(latin|cut|package)\."):
        [*Text(str(tmp_path), strict=True).documents()]
    for i in range(20):
        (tmp_path / f"{i}.txt").unlink()
    (tmp_path / "latin.txt").unlink()
    (tmp_path / "cut.jsonl.gz").unlink()
    with pytest.raises(UsageError, match=r"package\.json record 0 has no text field"):
        [*Text(str(tmp_path)).documents()]


def flipped(raw: bytes) -> bytes:
    """The bytes with some in the middle changed."""
    half = len(raw) // 2
    return raw[:half] + bytes(byte ^ 0x55 for byte in raw[half : half + 8]) + raw[half + 8 :]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("deep.jsonl", LINES + b"\n" + b"[" * 100_000, "deep.jsonl line 5 is not JSON: nested"),
        ("huge.jsonl", b'{"text": "a", "n": 1' + b"0" * 5000 + b"}", "line 1 is not JSON: Exceeds"),
        ("comma.json", b'["a",]', "comma.json line 1 is not JSON: Expecting value"),
        ("two.json", b'["a" "b"]', "stands where a comma or ] is due"),
        ("more.json", b'["a"]\n["b"]', "line 2 is not JSON: more stands behind the array's end"),
        ("cut.jsonl.gz", gzip.compress(LINES)[:-9], "cut.jsonl.gz cannot be read"),
        ("cut.jsonl.xz", lzma.compress(LINES)[:-20], "cut.jsonl.xz cannot be read"),
        ("cut.jsonl.bz2", bz2.compress(LINES)[:-9], "cut.jsonl.bz2 cannot be read"),
        ("cut.jsonl.zst", zstandard(LINES)[:-9], "cut.jsonl.zst cannot be read"),
        ("bad.parquet", flipped(parquet()), "bad.parquet"),
        ("cut.parquet", parquet()[:-9], "cut.parquet is not a Parquet file"),
        ("quote.csv", b'text,n\n"a,1\nb,2\n', "quote.csv cannot be read"),
        ("fields.csv", b"text,n\nHello, world,1\n", "record 0 has 3 fields, its head 2"),
        ("twice.csv", b"text,text\na,b\n", "has 2 text field 'text'"),
        ("head.tsv", b"title\tbody\na\tb\n", "no text field 'text'; its fields are title, body"),
        ("number.parquet", b"", "holds no"),
        ("a.zip", b"PK\x03\x04" + bytes(99), "a.zip is a zip archive: unpack it to text"),
        ("a.txt", b"ab\n" * 999_999 + b"caf\xc3", "byte 0xc3 at offset 3000000"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_place(
    tmp_path: Path, name: str, content: bytes, words: str
):
    (tmp_path / name).write_bytes(content)
    if name == "number.parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2]}), tmp_path / name)
        words = "number.parquet has no text in field 'text': its type is int64"
    with pytest.raises(UsageError) as error:
        [*Text(str(tmp_path / name)).documents()]
    assert words in str(error.value) and name in str(error.value)


def test_text_without_blank_lines_is_cut_at_its_line_ends(tmp_path: Path):
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"sentence {i}\n" for i in range(20_000)))
    documents = [one.text for one in Text(str(path)).documents()]
    assert "\n".join(documents) + "\n" == path.read_text() and len(documents) == 6


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.txt"
    path.write_text("text")
    whole: Callable = Path.open

    def refuse(self: Path, *args, **options):
        if self == path:
            raise PermissionError(13, os.strerror(13), str(self))
        return whole(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match=r"a\.txt cannot be read: Permission denied"):
        [*Text(str(path)).documents()]


def test_kinds_are_told_by_the_suffix_behind_a_compression():
    told = {"a.py": "text", "A.JSON.gz": "json", "b.tar.gz": "", "c.gz": "", "d": "", ".json": ""}
    assert {name: textfiles.kind(Path(name)) for name in told} == told
