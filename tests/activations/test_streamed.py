"""A hub dataset is streamed; a capture that was killed goes on where its last shard ended, and ends
with the same bytes. A finished capture is compared with its text without tokenising it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from saelab import models
from saelab.activations import Cache, resuming, text_pieces
from saelab.activations.from_text import from_text
from saelab.activations.writer import write
from saelab.errors import FailedRun, UsageError
from saelab.files import read_json, write_json
from saelab.models import hub
from saelab.models.tokens import Encoder
from tests.conftest import HOOK

NAME = "some/dataset"
PER_FILE, N_FILES = 50, 6
load = datasets.load_dataset


class Counting:
    """A stream that counts the records which are read of it."""

    read = 0

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.state_dict, self.load_state_dict = stream.state_dict, stream.load_state_dict

    def __iter__(self) -> Iterator[dict]:
        for record in self.stream:
            Counting.read += 1
            yield record


def record(i: int) -> dict:
    """Records of any length, some of them without text."""
    text = None if i % 29 == 3 else " " if i % 31 == 5 else f"record {i} " + "word " * (i * 7 % 41)
    return {"text": text, "n": i}


@pytest.fixture(scope="module")
def hub_dataset(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of JSON lines that is streamed as a dataset of the hub."""
    folder = tmp_path_factory.mktemp("records")
    for number in range(N_FILES):
        rows = (record(number * PER_FILE + i) for i in range(PER_FILE))
        (folder / f"{number}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")

    def load_dataset(name: str, config: None, split: str, streaming: bool) -> Counting:
        files = sorted(map(str, folder.iterdir()))
        stream = load("json", data_files=files, split=split, streaming=streaming)
        return Counting(stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "has", lambda name, kind: "yes")
        patch.setattr(datasets, "load_dataset", load_dataset)
        yield folder


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    """The tiny model."""
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def whole(model, hub_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All files of a capture that nothing stopped."""
    return contents(capture(model, tmp_path_factory.mktemp("whole") / "c"))


@pytest.fixture
def stopped(half: Path, tmp_path: Path) -> Path:
    """A capture stopped behind its fifth shard or so, in which contexts wait for theirs."""
    return Path(shutil.copytree(half, tmp_path / "stopped"))


@pytest.fixture(scope="module")
def half(model, hub_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `stopped` is a copy of."""
    out = tmp_path_factory.mktemp("half") / "c"
    with pytest.raises(KeyboardInterrupt):
        capture(model, out, 9_500)
    assert read_json(out / "reading.json")["waiting"]
    return out


def capture(model: Any, out: Path, stop_at: int = 0, **options) -> Path:
    """A capture of ten shards or so, which is stopped at so many positions."""
    source = from_text(model, NAME, [HOOK], 16_000, **options)
    source.plan = replace(source.plan, shard_contexts=64)

    def progress(n_positions: int) -> None:
        if stop_at and n_positions >= stop_at:
            raise KeyboardInterrupt

    Counting.read = 0
    return write(source, out, progress)


def contents(folder: Path) -> dict[str, bytes]:
    """Name and bytes of every file."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("options", "places"),
    [({}, (2_500, 9_000)), ({"pack": "one-per-context", "context": 32}, (5_500,))],
)
def test_a_stopped_capture_goes_on_where_its_last_shard_ended(
    model, hub_dataset: Path, whole: dict, tmp_path: Path, options: dict, places: tuple
):
    right = contents(capture(model, tmp_path / "whole", **options))
    assert "reading.json" not in right and (options or right == whole)
    every = Counting.read  # of which a capture so small has tokenised all at once
    for stop_at in places:
        out = tmp_path / str(stop_at)
        with pytest.raises(KeyboardInterrupt):
            capture(model, out, stop_at, **options)
        place = read_json(out / "reading.json")
        n_made, n_read = place["shards"], place["state"]["place"]["record"]
        assert n_made == (out / "shards.jsonl").read_text().count('{"shard":')
        assert contents(capture(model, out, **options)) == right
        # What the shards that were made are of is not read again.
        assert Counting.read == every - n_read and n_read > 12 * n_made


def test_a_capture_killed_between_a_line_and_its_place_reads_one_shard_again(
    model, hub_dataset: Path, whole: dict, stopped: Path, tmp_path: Path
):
    early = tmp_path / "early"
    with pytest.raises(KeyboardInterrupt):
        capture(model, early, 7_000)
    shutil.copy(early / "reading.json", stopped)
    assert contents(capture(model, stopped)) == whole
    (early / "reading.json").unlink()  # where nothing says more it begins again
    assert contents(capture(model, early)) == whole


def changed(out: Path, change) -> None:
    """The file with a change, sealed like any other."""
    fields = read_json(out / "reading.json")
    change(fields)
    write_json(out / "reading.json", fields)


@pytest.mark.parametrize("twin", ["waiting", "done", "packers", "n_contexts", "without"])
def test_a_resume_from_a_wrong_state_would_be_caught(
    model, hub_dataset: Path, whole: dict, stopped: Path, twin: str
):
    def change(fields: dict) -> None:
        state = fields["state"]
        if twin == "waiting":
            fields["waiting"] = []
        elif twin == "done":
            state["done"] = 0
        elif twin == "packers":
            state["packers"] = {split: {"tokens": [], "owners": []} for split in state["packers"]}
        elif twin == "n_contexts":
            state["n_contexts"]["train"] += 3
        else:
            state["without"] = []

    changed(stopped, change)
    assert contents(capture(model, stopped)) != whole


def test_a_text_that_changed_and_a_state_that_was_altered_are_refused(
    model, hub_dataset: Path, stopped: Path
):
    out, texts = stopped, {path: path.read_text() for path in hub_dataset.iterdir()}
    place = read_json(out / "reading.json")
    (out / "reading.json").write_text(json.dumps({**place, "shards": 1}))
    with pytest.raises(FailedRun, match=r"reading\.json was altered"):
        capture(model, out)
    write_json(out / "reading.json", {**place, "shards": 99})
    with pytest.raises(FailedRun, match="it is of 99 shards, there are"):
        capture(model, out)
    write_json(out / "reading.json", place)
    for path, text in texts.items():
        path.write_text(text.replace("record", "other"))
    with pytest.raises(FailedRun, match=r"some/dataset is not what it was .* is another text"):
        capture(model, out)
    for path, text in texts.items():
        path.write_text(text)


def local(model, folder: Path, out: Path) -> Path:
    """A capture of a folder of texts to its end."""
    return write(sharded(model, folder), out)


def sharded(model, folder: Path):
    """Its source."""
    source = from_text(model, str(folder), [HOOK], 60_000)
    source.plan = replace(source.plan, shard_contexts=64)
    return source


def test_a_finished_capture_is_compared_without_tokenising(
    model, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    corpus = Path(shutil.copytree(tiny_corpus, tmp_path / "corpus"))
    out = local(model, corpus, tmp_path / "c")
    note = Cache(out).manifest["documents_read"]
    assert note["n"] == 90 and note["ended"]
    source = sharded(model, corpus)
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "ids", lambda *_: pytest.fail("the text was tokenised"))
        assert write(source, out) == out
    text = sorted(corpus.iterdir())[5]
    was = text.read_text()
    for change in (was.replace("a", "b", 1), "b" + was[1:]):
        text.write_text(change)
        with pytest.raises(UsageError, match="holds another text"):
            local(model, corpus, out)
    text.write_text(was)
    more = corpus / "more.txt"
    more.write_text("one more document " * 40)
    with pytest.raises(UsageError, match="holds another text"):
        local(model, corpus, out)
    more.unlink()
    # Known-bad twin: a digest that takes no texts.
    monkeypatch.setattr(text_pieces.Digest, "add", lambda self, document: None)
    text.write_text(was.replace("a", "b", 1))
    note = {"n": 0, "sha256": text_pieces.Digest().sha.hexdigest(), "ended": True}
    source = from_text(model, str(corpus), [HOOK], 60_000)
    assert not source.is_unchanged({}) and not source.is_unchanged({"documents_read": note})


def test_another_text_that_makes_the_same_contexts_is_the_same_by_their_tokens(
    model, tiny_corpus: Path, tmp_path: Path
):
    """A digest that differs decides nothing: what lies behind the last context may change."""
    corpus = Path(shutil.copytree(tiny_corpus, tmp_path / "corpus"))
    source = from_text(model, str(corpus), [HOOK], 2_000)
    cache = Cache(write(source, tmp_path / "c"))
    last = cache.document_names()[-1]
    with (corpus / last).open("a") as file:
        file.write(" and more")
    again = from_text(model, str(corpus), [HOOK], 2_000)
    assert not again.is_unchanged(cache.manifest)
    write(again, tmp_path / "c")
    assert resuming.load(tmp_path / "c", 9) == resuming.From(0, None)
