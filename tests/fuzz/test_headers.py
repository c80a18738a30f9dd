"""Damaged recipes, manifests, SAE headers and prompt files: read, or refused in one line."""

import json
import random
import shutil
from pathlib import Path

import pytest

from apps.cli import eval as evaluation
from apps.cli import train
from saelab import SAE, digests
from saelab.activations import Cache
from saelab.tasks import files
from tests.conftest import HOOK
from tests.fuzz.mutate import Ends, damaged, twisted

N = 250  # inputs of each kind


@pytest.fixture
def ends(capsys: pytest.CaptureFixture) -> Ends:
    return Ends(capsys)


def reading(monkeypatch: pytest.MonkeyPatch, read) -> None:
    """Make a verb of a reader, so that its errors are told as a verb's are."""
    monkeypatch.setattr(evaluation, "run", lambda args: read(args.runs[0]) and 0)


RECIPE = """\
# a sweep
cache: {cache}
hook: blocks.0.hook_resid_post
sparsify: [topk, batchtopk]
k: 4
features: 64
tokens: 5e3
batch: 256
lr: [1e-3, null]
prefixes: []
wandb: false
loss: plain
"""


@pytest.mark.parametrize("seed", range(4))
def test_recipes(ends: Ends, tiny_cache: Path, tmp_path: Path, monkeypatch, seed: int):
    monkeypatch.setattr(train, "train_showing_progress", lambda configs, **_: None)
    monkeypatch.setattr(train, "summary", lambda config: ({}, ""))
    rng, recipe = random.Random(seed), tmp_path / "recipe.yaml"
    whole = RECIPE.format(cache=tiny_cache).encode()
    for _ in range(N // 2):
        recipe.write_bytes(damaged(whole, rng))
        names = (str(recipe), "=", "--", "sparsifier")
        ends(["train", str(recipe), "--out", str(tmp_path / "out")], *names)
    assert not (tmp_path / "out").exists() and ends.codes[0] and ends.codes[2] > N // 8


@pytest.mark.parametrize("sealed", [False, True])
def test_manifests(ends: Ends, tiny_cache: Path, tmp_path: Path, monkeypatch, sealed: bool):
    def read(path: Path) -> None:
        cache = Cache(path)
        next(cache.contexts(HOOK, "held_out"))
        assert cache.document_names() and repr(cache) and cache.hooks

    reading(monkeypatch, read)
    folder = Path(shutil.copytree(tiny_cache, tmp_path / "cache"))
    damage(folder / "manifest.json", ends, sealed)


@pytest.mark.parametrize("sealed", [False, True])
def test_headers_of_saes(ends: Ends, tiny_run: Path, tmp_path: Path, monkeypatch, sealed: bool):
    reading(monkeypatch, lambda path: SAE.load(path).origin)
    folder = Path(shutil.copytree(tiny_run / "sae", tmp_path / "sae"))
    damage(folder / "sae.json", ends, sealed)


def damage(header: Path, ends: Ends, sealed: bool) -> None:
    """Read a header damaged in N ways; sealed: its digest is that of what it says now."""
    rng, whole = random.Random(header.name), header.read_bytes()
    value = json.loads(whole)
    value.pop(digests.FIELD, None)
    for number in range(N):
        one = twisted(value, rng)
        text = json.dumps(digests.sealed(one) if sealed and isinstance(one, dict) else one)
        header.write_bytes(damaged(whole, rng) if number % 5 == 0 else text.encode())
        ends(["eval", str(header.parent)], str(header.parent))
    assert ends.codes[1] + ends.codes[2] > N // 3


PROMPTS = {
    "own.jsonl": [
        {"prompt": f"one {i}", "twin": f"two {i}", "answers": [" a"], "wrong": [" b"],
         "attributes": {"name": "x"}, "positions": {"end": 3}}
        for i in range(3)
    ],
    "ioi.json": [
        {"clean": "Then A and B went, A gave to", "corrupted": "Then A and B went, C gave to",
         "corrupted_hard": "Then A and B went, B gave to"}
    ],
    "agreement.csv": "clean_prefix,patch_prefix,clean_answer,patch_answer,case\n"
    "The cat,The cats,is,are,singular_x\n",
    "greater.csv": "clean,corrupted,label\nThe war lasted from 1741 to 17,x y,41\n",
}  # fmt: skip


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts(ends: Ends, tmp_path: Path, monkeypatch, name: str):
    reading(monkeypatch, files.read_words)
    path, whole, rng = tmp_path / name, PROMPTS[name], random.Random(name)
    for number in range(N // 2):
        text = whole if isinstance(whole, str) else json.dumps(whole)
        if name == "own.jsonl":
            text = "\n".join(json.dumps(row) for row in whole)
        raw = damaged(text.encode(), rng)
        if number % 2 and not isinstance(whole, str):
            raw = json.dumps(twisted(whole, rng)).encode()
        path.write_bytes(raw)
        ends(["eval", str(path)], str(path))
    assert ends.codes[2] > N // 20


def test_an_error_without_words_would_be_noticed(ends: Ends, tmp_path: Path, monkeypatch):
    reading(monkeypatch, lambda path: {}["k"])
    with pytest.raises(KeyError):
        ends(["eval", str(tmp_path)], str(tmp_path))
    reading(monkeypatch, lambda path: (_ for _ in ()).throw(RuntimeError("it failed")))
    with pytest.raises(AssertionError):  # it names nothing
        ends(["eval", str(tmp_path)], str(tmp_path))
