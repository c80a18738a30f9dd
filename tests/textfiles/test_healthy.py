"""No false alarms: odd but healthy texts are captured, and their tokens spell them."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from saelab import models
from saelab.activations import Cache
from saelab.activations.from_text import from_text
from saelab.spelling import pieces, spell
from tests.conftest import HOOK

MANY = [f"document {i} says {i * i}" for i in range(60)]


def lines(texts: list[str]) -> str:
    """JSON lines of the texts."""
    return "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)


def one(name: str, content: str | bytes) -> Callable[[Path], Path]:
    """Makes one file."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def many(names: list[str], content: str = "some text {}") -> Callable[[Path], Path]:
    """Makes a folder of files."""

    def make(folder: Path) -> Path:
        for number, name in enumerate(names):
            one(f"corpus/{name}", content.format(number))(folder)
        return folder / "corpus"

    return make


HEALTHY: dict[str, Callable[[Path], Path]] = {
    "one token documents": one("a.jsonl", lines([chr(97 + i % 26) for i in range(200)])),
    "two documents": one("a.jsonl", lines(["a" * 200, "b" * 200])),
    "one long line each": one("a.jsonl", lines(["word " * 2000, "other " * 2000])),
    "crlf": one("a.txt", "\r\n\r\n".join(text * 80 for text in MANY)),
    "crlf json": one("a.jsonl", lines(MANY).replace("\n", "\r\n") + "\r\n"),
    "byte order mark": one("a.txt", "\ufeff" + "\n\n".join(text * 80 for text in MANY)),
    "byte order mark json": one("a.json", b"\xef\xbb\xbf" + json.dumps(MANY).encode()),
    "byte order mark csv": one("a.csv", "\ufefftext\r\n" + "\r\n".join(MANY)),
    "line separators": one("a.jsonl", lines([f"{text}\u2028{text}\u2029\x85" for text in MANY])),
    "form feeds and other controls": one("a.jsonl", lines([f"\x00\x0c\x1b {t}" for t in MANY])),
    "spaces and unicode in paths": many(
        [f"ein Ordner/日本 {i}/naïve 😀 {i}.txt" for i in range(60)]
    ),
    "quotes and globs in paths": many([f"a'b\"[{i}]*?$(x).md" for i in range(60)]),
    "names that are not UTF-8": many([os.fsdecode(b"na\xefve/%d.txt" % i) for i in range(60)]),
    "a name that is not UTF-8": one(os.fsdecode(b"na\xefve.jsonl"), lines(MANY)),
    "leading dashes": many([f"-{i}.txt" for i in range(60)]),
    "deep folders": many([f"{'d/' * 40}{i}.txt" for i in range(60)]),
    "6,000 tiny files": many([f"{i % 50}/{i}.txt" for i in range(6000)], "{}"),
    "hidden and foreign files": many(
        [*(f"{i}.txt" for i in range(60)), ".git/x.txt", "picture.png", "Makefile", ".hidden.json"]
    ),
    "empty files among others": many([f"{i}.txt" for i in range(60)], "{}" + " " * 40),
    "upper case suffixes": many([f"{i}.TXT" for i in range(60)]),
    "no end of line": one("a.jsonl", lines(MANY)),
    "many blank lines": one(
        "a.jsonl", "\n\n" + lines(MANY).replace("\n", "\n\n \n\t\n") + "\n\n\n"
    ),
    "fields of every type": one(
        "a.json", json.dumps([{"n": [1, {"a": None}], "b": 1e99, "text": t} for t in MANY])
    ),
    "numbers that are none": one(
        "a.json", '[{"x": NaN, "y": -Infinity, "text": "abcdefgh"}, "other one"]'
    ),
    "escaped emoji": one("a.jsonl", "\n".join(json.dumps({"text": t + "😀"}) for t in MANY)),
    "combining characters": one("a.jsonl", lines(["e\u0301" * 9 + "👩‍👩‍👧", *MANY])),
    "right to left": one("a.jsonl", lines([f"שלום {i} مرحبا" for i in range(60)])),
    "special tokens spelt out": one("a.jsonl", lines([f"<|endoftext|>{t}<|pad|>" for t in MANY])),
    "equal documents": one("a.jsonl", lines(["the same"] * 30 + MANY)),
    "quoted csv": one("a.csv", 'id,text\n1,"two\nlines, ""quoted"""\n2,' + "b" * 200_000),
    "tsv without an end": one("a.tsv", "text\tn\n" + "\n".join(f"{t}\t1" for t in MANY)),
    "only nulls but two": one("a.jsonl", '{"text": null}\n' * 500 + lines(["a" * 50, "b" * 50])),
    "packed twice over": one("a.jsonl.gz", gzip.compress(lines(MANY[:30]).encode() + b"\n") * 2),
    "one sentence a line": one("a.txt", "\n".join(MANY * 200)),
}


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    """The tiny model, whose tokens are bytes."""
    return models.load(tiny_model)


@pytest.mark.parametrize("name", HEALTHY)
def test_an_odd_but_healthy_text_is_captured(model, tmp_path: Path, name: str):
    path = HEALTHY[name](tmp_path)
    source = from_text(model, str(path), [HOOK], 640, context=8)
    cache = Cache.write(tmp_path / "cache", source)
    assert cache.n_tokens("train") and cache.n_tokens("held_out")
    assert all(document.encode() for document in cache.document_names())
    words = pieces(model.tokenizer, model.cfg.d_vocab)
    raw = path.read_bytes().decode(errors="replace") if path.is_file() else ""
    for split in ("train", "held_out"):
        chunk = next(cache.contexts(HOOK, split))
        spelt = "".join(spell([words[token] for token in chunk.tokens[0, 1:].tolist()]))
        ended = spelt.split("<|endoftext|>")[0]
        # Plain text stands in the file as its tokens spell it.
        assert "\\x" not in ended[:-9] and (path.suffix != ".txt" or ended in raw)


def test_the_checker_notices_a_text_that_is_refused(model, tmp_path: Path):
    path = one("a.jsonl", lines(["alone"]))(tmp_path)
    with pytest.raises(Exception, match="one document"):
        from_text(model, str(path), [HOOK], 640, context=8)
