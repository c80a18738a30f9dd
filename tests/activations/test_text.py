"""Text sources: what becomes a document, what it is called, on which side it falls, and what is
refused."""

import json
from pathlib import Path

import pytest

from saelab.activations import text
from saelab.activations.text import documents
from saelab.documents import held_out
from saelab.errors import UsageError
from saelab.models import hub
from saelab.textfiles import reader

STORIES = ["One day a cat sat.", "The dog ran home.", "Rain fell all night."]


def texts(source: Path, **options) -> list[str]:
    """The documents' texts."""
    return [document.text for document in documents(str(source), **options)]


def write(path: Path, content: str | bytes) -> Path:
    """A file with this content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("array.json", json.dumps(STORIES)),
        ("objects.json", json.dumps([{"text": story, "n": 1} for story in STORIES])),
        ("lines.json", "\n".join(json.dumps({"text": story}) for story in STORIES)),
        ("lines.jsonl", "\n\n".join(json.dumps(story) for story in STORIES) + "\n"),
        ("mark.jsonl", "\ufeff" + "\n".join(json.dumps(story) for story in STORIES)),
    ],
)
def test_json_arrays_and_lines_of_strings_and_objects_are_read(
    tmp_path: Path, name: str, content: str
):
    found = list(documents(str(write(tmp_path / name, content))))
    assert [d.text for d in found] == STORIES
    assert [d.name for d in found] == [f"{name}#{i}" for i in range(3)]
    assert [d.held_out for d in found] == [held_out(story) for story in STORIES]


def test_parquet_files_are_read_by_their_text_field(tmp_path: Path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(
        pyarrow.table({"story": STORIES, "n": [1, 2, 3]}), tmp_path / "a.parquet"
    )
    assert texts(tmp_path / "a.parquet", field="story") == STORIES
    with pytest.raises(
        UsageError, match=r"has no text field 'text'; its fields are story, n \(--text-field\)"
    ):
        texts(tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="is not a Parquet file"):
        texts(write(tmp_path / "b.parquet", b"PAR0 and more bytes"))


def test_plain_text_is_cut_at_blank_lines_into_documents_of_about_two_thousand_characters(
    tmp_path: Path,
):
    paragraphs = [f"paragraph {i} " + "word " * 60 for i in range(30)]
    whole = "\n\n".join(paragraphs)
    found = texts(write(tmp_path / "book.md", whole))
    assert "\n\n".join(found) == whole
    assert all(
        reader.DOCUMENT_CHARACTERS <= len(piece) < 2 * reader.DOCUMENT_CHARACTERS
        for piece in found[:-1]
    )
    assert texts(write(tmp_path / "short.txt", "just this")) == ["just this"]


def test_files_of_a_folder_are_named_and_held_out_by_relative_path_in_a_fixed_order(tmp_path: Path):
    for i in range(60):
        write(tmp_path / "one" / f"sub{i % 3}" / f"{i}.txt", f"text {i}")
    write(tmp_path / "one" / "blank.txt", " \n")
    write(tmp_path / "one" / ".git" / "hidden.txt", "not this")
    write(tmp_path / "one" / "picture.png", b"\xff\xd8")
    found = list(documents(str(tmp_path / "one")))
    assert len(found) == 60 and {d.name for d in found} == {
        f"sub{i % 3}/{i}.txt" for i in range(60)
    }
    assert all(d.held_out == held_out(d.name) for d in found) and any(d.held_out for d in found)
    (tmp_path / "one").rename(tmp_path / "two")
    assert list(documents(str(tmp_path / "two"))) == found


def test_records_inside_a_folder_are_read_too(tmp_path: Path):
    write(tmp_path / "a" / "b.json", json.dumps(STORIES))
    assert [d.name for d in documents(str(tmp_path))] == ["a/b.json#0", "a/b.json#1", "a/b.json#2"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", "", "empty.txt holds no text"),
        ("blank.txt", " \n\n\t", "blank.txt holds no text"),
        ("bytes.txt", b"caf\xe9 au lait", "bytes.txt is not UTF-8: byte 0xe9 at offset 3"),
        ("bytes.json", b'["caf\xe9"]', "bytes.json is not UTF-8: byte 0xe9 at offset 5"),
        ("none.json", "[]", "none.json holds no records"),
        ("cut.json", '["one", "tw', "cut.json line 1 is not JSON"),
        ("line.jsonl", '"one"\n{"text": \n', "line.jsonl line 2 is not JSON"),
        (
            "field.json",
            '[{"story": "x", "n": 1}]',
            "record 0 has no text field 'text'; its fields are story, n (--text-field)",
        ),
        (
            "number.json",
            "[3]",
            "record 0 is neither a string nor an object with a field 'text': it is int",
        ),
        ("null.jsonl", '{"text": null}', "null.jsonl holds no records with a text"),
    ],
)
def test_files_that_are_no_text_are_refused_with_the_reason(
    tmp_path: Path, name: str, content: str | bytes, words: str
):
    with pytest.raises(UsageError) as error:
        texts(write(tmp_path / name, content))
    assert words in str(error.value)


@pytest.mark.parametrize("source", ["missing.txt", "./missing", "/no/such/folder", "a/b/c"])
def test_missing_files_are_not_looked_for_on_the_hub(source: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hub, "has", lambda name, kind: pytest.fail("the hub was asked"))
    with pytest.raises(UsageError, match="no such text file or folder"):
        documents(source)


def test_a_folder_without_text_says_what_it_reads(tmp_path: Path):
    write(tmp_path / "picture.png", b"\xff")
    with pytest.raises(UsageError, match=r"holds no text: files read are .*\.jsonl"):
        texts(tmp_path)


@pytest.mark.parametrize(
    ("answer", "words"),
    [("unreachable", "the hub is unreachable"), ("no", "the hub has none of that name")],
)
def test_a_dataset_that_cannot_be_had_is_refused_with_the_reason(
    answer: str, words: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(hub, "has", lambda name, kind: answer)
    with pytest.raises(UsageError, match=f"unknown text 'some/dataset'.*{words}"):
        list(documents("some/dataset"))


def test_a_hub_dataset_is_streamed_from_its_configuration(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def load_dataset(*args, **options):
        asked.append((args, options))
        return iter([{"text": story} for story in STORIES])

    monkeypatch.setattr(hub, "has", lambda name, kind: "yes")
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert [d.text for d in documents("some/dataset:small")] == STORIES
    assert asked == [(("some/dataset", "small"), {"split": "train", "streaming": True})]


def test_the_standard_library_has_held_out_files():
    found = [document for _, document in zip(range(80), documents("stdlib"), strict=False)]
    assert {document.held_out for document in found} == {True, False}
    assert all(
        document.held_out == held_out(document.name) and document.name.endswith(".py")
        for document in found
    )


def test_the_bundled_mixture_needs_the_models_words():
    with pytest.raises(UsageError, match="single tokens of the model"):
        documents("bundled-mix")


def test_words_are_the_single_tokens_after_a_space():
    class Tokenizer:
        def get_vocab(self):
            return dict.fromkeys(["Ġhello", "▁World", "Ġin", "inner", "Ġfoo1", "ĠABC"], 0)

    assert text.words(Tokenizer()) == ["World", "hello"]
