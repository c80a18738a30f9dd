"""What a capture makes of a text: its tokens, bounds and split, and what it says beforehand."""

import json
import shutil
from itertools import chain
from pathlib import Path

import pytest

from apps.cli import main
from saelab import models
from saelab.activations import Cache, reading
from saelab.activations.from_text import from_text
from saelab.activations.reading import Reading
from saelab.activations.text import Text
from saelab.documents import RULE, held_out, split
from saelab.errors import UsageError
from tests.conftest import HOOK

END = "<|endoftext|>"
CHAT = [f"{i} asks{END}{i} answers{END}" for i in range(120)]


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    """The tiny model, whose token 0 is END and whose others are bytes."""
    return models.load(tiny_model)


def write(path: Path, texts: list) -> Path:
    """JSON lines of the texts."""
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return path


def inside(cache: Cache) -> int:
    """How many end-of-text tokens stand within a document."""
    n = 0
    for chunk in cache.contexts(HOOK):
        same = chunk.documents[:, 1:-1] == chunk.documents[:, 2:]
        n += int((same & (chunk.tokens[:, 1:-1] == 0)).sum())
    return n


def test_special_tokens_in_a_text_are_read_only_when_asked_for(model, tmp_path: Path):
    path = write(tmp_path / "a.jsonl", CHAT)
    plain = Cache.write(tmp_path / "c", from_text(model, str(path), [HOOK], 2000))
    parsed = from_text(model, str(path), [HOOK], 2000, parse_special=True)
    asked = Cache.write(tmp_path / "d", parsed)
    assert inside(plain) == 0 and inside(asked) > 50
    assert not plain.plan.parse_special and asked.plan.parse_special
    with pytest.raises(UsageError, match="parse_special: True / False"):
        Cache.write(tmp_path / "c", parsed)


def test_special_tokens_do_not_count_when_asked(model, tmp_path: Path):
    path = write(tmp_path / "a.jsonl", CHAT)
    options = {"parse_special": True, "uncounted": "special"}
    cache = Cache.write(tmp_path / "c", from_text(model, str(path), [HOOK], 2000, **options))
    chunk = next(cache.contexts(HOOK))
    right = chunk.tokens != 0
    assert (chunk.counted == right).all() and not right[:, 1:].all() and not right[:, 0].any()
    assert cache.plan.masked and cache.plan.uncounted == "special"
    with pytest.raises(UsageError, match="uncounted='padding'"):
        from_text(model, str(path), [HOOK], 2000, uncounted="padding")


def test_contexts_begin_with_what_is_asked_for(model, tmp_path: Path):
    path = write(tmp_path / "a.jsonl", ["abcdefghij" * 9] * 2 + ["klmnop" * 9] * 30)
    whole = "".join(json.loads(line)["text"] for line in path.read_text().split("\n"))
    for asked, first in ((None, 0), ("65", 65), (66, 66), ("none", None)):
        source = from_text(model, str(path), [HOOK], 640, context=16, bos=asked)
        tokens = next(source.pieces()).tokens[0].tolist()
        assert tokens[0] == first or (first is None and model.tokenizer.decode(tokens) in whole)
    with pytest.raises(UsageError, match=r"token 257 would bound .* embeddings for 257"):
        from_text(model, str(path), [HOOK], 640, bos=257)


def test_the_bridge_does_not_change_the_tokenizer(tmp_path: Path, tiny_model: Path):
    folder = shutil.copytree(tiny_model, tmp_path / "m")
    config = folder / "tokenizer_config.json"
    stated = json.loads(config.read_text())
    config.write_text(json.dumps({**stated, "bos_token": None, "eos_token": None}))
    bare = models.load(folder)
    bare.bridge  # noqa: B018
    assert bare.bridge.tokenizer.bos_token_id is not None  # what a bridge invents
    assert (bare.tokenizer.bos_token_id, bare.tokenizer.eos_token_id) == (None, None)
    with pytest.raises(UsageError, match="neither a BOS nor an end-of-text token"):
        from_text(bare, "stdlib", [HOOK], 640)
    packed = next(from_text(bare, "stdlib", [HOOK], 640, bos="none").pieces())
    assert 0 not in packed.tokens


def of_one_side(n: int) -> list[str]:
    """Texts that hashing holds none of out."""
    texts = (f"text {i} " + "word " * 20 for i in range(9 * n))
    return [text for text in texts if not held_out(text)][:n]


@pytest.mark.parametrize("n", [2, 15])
def test_where_hashing_leaves_a_side_empty_the_smallest_hash_is_held_out(
    model, tmp_path: Path, n: int
):
    texts = of_one_side(n)
    path = write(tmp_path / "a.jsonl", texts)
    cache = Cache.write(tmp_path / "c", from_text(model, str(path), [HOOK], 320, context=16))
    first = split((f"a.jsonl#{i}", text) for i, text in enumerate(texts))
    assert first.name and cache.manifest["split_rule"] == first.rule == cache.plan.split_rule
    held = {int(n) for chunk in cache.contexts(HOOK, "held_out") for n in chunk.documents.unique()}
    assert [cache.document_names()[number] for number in held] == [first.name]
    other = write(tmp_path / "a.jsonl", [text + "!" for text in texts[::-1]])
    with pytest.raises(UsageError, match=r"split_rule: .* / 'held out: a\.jsonl#"):
        Cache.write(tmp_path / "c", from_text(model, str(other), [HOOK], 320, context=16))


def test_texts_that_hashing_splits_are_split_by_it(tmp_path: Path):
    texts = [f"text {i}" for i in range(300)]
    assert Text(str(write(tmp_path / "a.jsonl", texts))).split.rule == RULE
    late = [*of_one_side(250), *texts]  # the first 200 decide
    assert Text(str(write(tmp_path / "b.jsonl", late))).split.name.startswith("b.jsonl#")


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["alone " * 50], "is one document"),
        (["twin " * 50] * 3, "is 3 documents of the same text"),
        (["long " * 90, "x"], "give 2 .* tokens, a context takes 31"),
    ],
)
def test_a_text_that_cannot_be_split_is_refused_before_the_work(
    model, tmp_path: Path, texts: list, words: str
):
    path = write(tmp_path / "a.jsonl", texts)
    with pytest.raises(UsageError, match=words):
        from_text(model, str(path), [HOOK], 640)


def test_a_long_document_is_tokenised_in_pieces(model, tmp_path: Path, monkeypatch):
    text = "\n".join(f"line {i} of a book" for i in range(400))
    path = write(tmp_path / "a.jsonl", [text, "another"])
    whole = [[*ids] for _, ids in Reading(Text(str(path)), model.tokenizer).tokenised()]
    monkeypatch.setattr(reading, "LONG", 500)
    cut = [[*ids] for _, ids in Reading(Text(str(path)), model.tokenizer).tokenised()]
    assert len(whole[0]) == 1 and len(cut[0]) > 10 and max(map(len, cut[0])) <= 500
    assert [[*chain(*ids)] for ids in cut] == [[*chain(*ids)] for ids in whole]


def test_what_is_left_out_is_said_and_recorded(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    corpus = Path(shutil.copytree(tiny_corpus, tmp_path / "corpus"))
    (corpus / "bad.txt").write_bytes(b"caf\xe9")
    write(corpus / "more.jsonl", ["text", None, None])
    argv = ["capture", "--model", str(tiny_model), "--text", str(corpus), "--hook", HOOK]
    argv += ["--tokens", "100k", "--out", str(tmp_path / "c")]
    assert main([*argv, "--strict"]) == 2
    assert not (tmp_path / "c").exists()
    assert "bad.txt is not UTF-8" in (said := capsys.readouterr().err) or "more.jsonl" in said
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "2 records left out: each has no text (null)" in out and "bad.txt is not UTF-8" in out
    skipped = Cache(tmp_path / "c").manifest["skipped"]
    assert sum(skipped["records"].values()) == 2 and len(skipped["files"]) == 1


def test_an_estimate_shows_the_first_context(tiny_model: Path, tiny_corpus: Path, tmp_path, capsys):
    argv = ["capture", "--model", str(tiny_model), "--text", str(tiny_corpus), "--hook", HOOK]
    argv += ["--out", str(tmp_path / "c"), "--dry-run", "--bos", "none"]
    assert main(argv) == 0
    shown = capsys.readouterr().out.splitlines()[0].split(": ")[1]
    word = shown.replace("│", "").split()[1]
    assert any(word in path.read_text() for path in tiny_corpus.iterdir())
    assert shown.count("│") == 31 and END not in shown.replace("│", "")


def test_what_text_and_tokenizer_say_is_said_before_weights_are_read(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("the weights were read"))
    argv = ["capture", "--model", str(tiny_model), "--hook", HOOK, "--text"]
    alone = write(tmp_path / "a.jsonl", ["alone"])
    for wrong, words in (
        ([str(alone)], "is one document"),
        (["stdlib", "--bos", "first"], "bos='first' is neither a token's id nor none"),
        (["stdlib", "--arrays", "a.npy", "--strict"], "are of texts"),
    ):
        assert main([*argv, *wrong, "--out", str(tmp_path / "c")]) == 2
        assert words in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "c").exists()
