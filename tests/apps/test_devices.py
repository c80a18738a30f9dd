"""Every verb on another device than the CPU: a pretend one that refuses what a card refuses, held
to the CPU's numbers."""

import contextlib
import dataclasses
import importlib
import io
import json
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.attention import SDPBackend, sdpa_kernel

import training
from apps.cli import VERBS, capture, compare_text, demo, index, main, module_of
from apps.cli import compare as compare_verb
from apps.cli import eval as evaluation
from saelab import SAE, Choice, models
from saelab.analysis.circuits.heads import codes
from saelab.analysis.dark_matter import linear
from saelab.evaluation import report
from saelab.evaluation.supervised import site
from saelab.kernels import backend
from saelab.kernels.cpu import probe
from saelab.models import running
from saelab.origin import Origin
from tests.conftest import HOOK, SECOND_HOOK
from tests.pictures import tiny
from tests.pretend import NAME, pretend_accelerator, products
from training.reproduce import compare, data, g_sae
from training.reproduce.claims import Settings

CLOSE = 1e-5  # of a number's size: both sides compute by the reference, in the same order
VARYING = ("seconds", "command", "sha256")  # fields of documents that need not agree
ON_THE_CPU = 0.5  # of the multiplications: a cache's moments, a run's first bias


@pytest.fixture(scope="module")
def letters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts with twins whose answers are what the tiny model says, so that it does the task."""
    rng, model = random.Random(0), models.load(tiny_model)
    texts = ["".join(rng.choices("abcdefgh", k=6)) for _ in range(40)]
    ids = torch.tensor([[0, *model.tokenizer(text)["input_ids"]] for text in texts])
    answers = [65 + int(row[65:91].argmax()) for row in running.logits(model, ids, last=True)]
    said = [model.tokenizer.decode([answer]) for answer in answers]
    rows = [
        {"prompt": text, "twin": texts[i - 1], "answers": [said[i]], "wrong": [said[i - 1]]}
        for i, text in enumerate(texts)
        if said[i] != said[i - 1]
    ]
    for number, row in enumerate(rows):
        row["attributes"] = {"first": row["prompt"][0], "odd": str(number % 2)}
    path = tmp_path_factory.mktemp("prompts") / "letters.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture(scope="module")
def other_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with another seed."""
    config = training.config.read(tiny_run / "config.yaml")
    out = tmp_path_factory.mktemp("runs") / "other"
    return training.train(dataclasses.replace(config, out=str(out), seed=1, tokens=2048))


@pytest.fixture(scope="module")
def lines(
    tiny_model: Path,
    tiny_corpus: Path,
    tiny_cache: Path,
    letters: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """The command lines that are walked, by verb and what is special; run, run2 and out are folders
    of each walk's own."""
    text = f"--model {tiny_model} --text {tiny_corpus} --tokens 3000 --hook {HOOK} --out out"
    train = f"--cache {tiny_cache} --hook {HOOK} --features 64 --k 4 --tokens 2048 --batch 256"
    live = f"--live --model {tiny_model} --text {tiny_corpus} --hook {HOOK} --features 64 --k 4 "
    live += "--tokens 1024 --batch 128 --ring 512 --keep 600"
    sizes = "--n 4 --held-out 12 --repeats 1 --truth none --out out"
    circuits = f"--model {tiny_model} --prompts {letters} {sizes} --method"
    at = tmp_path_factory.mktemp("pictures")
    seen = f"--model {tiny.folder('ViTModel', at / 'vit')} --images {tiny.noise(at / 'images', 30)}"
    return {
        "capture": f"{text} --dtype float32 --hook {SECOND_HOOK}",
        "capture gradients": f"{text} --gradients",
        "capture check": f"--check run --model {tiny_model} --cache {tiny_cache} --tokens 300",
        "capture images": f"{seen} --hook blocks.0.hook_out --dtype float32 --out out",
        "train dictionary": f"{train} --out out --dictionary orthogonal",
        "train live": f"{live} --out out --backend reference",
        # At this rate features die, so that AuxK is walked too.
        "train": f"{train} --out out --backend reference --lr 0.06",
        "eval controls": f"run --cache {tiny_cache} --tokens 300 --controls",
        "compare": f"run run2 --cache {tiny_cache} --tokens 300",
        "index": f"run --cache {tiny_cache} --tokens 2000 --compare run2",
        "explain": f"run --cache {tiny_cache} --tokens 2000 --held-out 300",
        "prompt": f"run alpha --cache {tiny_cache} --exact --next b --compare beta --top 3",
        "steer": f"run --text al --feature 3 --add 2 --new 3 --loss 200 --cache {tiny_cache} "
        f"--prompts {letters}",
        "export": f"run --to delphi --cache {tiny_cache} --tokens 2000 --out out",
        "dark-matter": f"run run2 --cache {tiny_cache} --tokens 2000 --held-out 300",
        "dark-matter errors": f"run --cache {tiny_cache} --tokens 2000 --held-out 200 --errors out",
        "supervise": f"run --prompts {letters} --changes 2",
        "circuits eap-ig": f"{circuits} eap-ig",
        "circuits codes": f"{circuits} codes",
        "circuits patching": f"{circuits} patching",
        "circuits feature-circuit": f"{circuits} feature-circuit --run run --run z",
        "circuits heads": f"--model {tiny_model} --heads z --cache {tiny_cache} --tokens 300",
        "graph": f"--model {tiny_model} --run run --run z --prompt abcabc --ablated 3 --apart "
        "--out out",
        "compress": f"--cache {tiny_cache} --ridge 1e-6 --rounds 1 --tokens 500 --held-out 300 "
        "--ratio 0.5 --method whitened-svd --out out",
        "bench": "--width 16 --features 64 --k 4 --batch 32 --repeats 2 --only topk",
        "reproduce": "g-sae --quick --out out",
    }


NAMES = (
    *("capture", "capture gradients", "capture check", "capture images"),
    *("train", "train dictionary", "train live", "eval controls"),
    *(
        "index",
        "compare",
        "explain",
        "prompt",
        "steer",
        "export",
        "dark-matter",
        "dark-matter errors",
        "supervise",
        "circuits eap-ig",
    ),
    *(
        "circuits codes",
        "circuits patching",
        "circuits feature-circuit",
        "circuits heads",
        "graph",
        "compress",
        "bench",
        "reproduce",
    ),
)


class Walk:
    """One command line on one device, in a folder of its own with two runs."""

    def __init__(self, folder: Path, runs: tuple[Path, Path], line: str, device: str) -> None:
        for name, run in zip(("run", "run2"), runs, strict=True):
            shutil.copytree(run, folder / name)
        _heads(folder / "z")
        own = {name: str(folder / name) for name in ("run", "run2", "out", "z")}
        words = [own.get(word, word) for word in line.split()]
        printed, attention = io.StringIO(), sdpa_kernel(SDPBackend.MATH)
        with contextlib.redirect_stdout(printed), backend("reference"), attention:
            self.code = main([*words, "--device", device, "--json", "--debug"])
        self.folder = folder
        document = printed.getvalue().replace(str(folder), "HERE")
        self.result: Any = json.loads(document[document.index("{") :])

    def files(self) -> dict[str, Any]:
        """What it has written that is no document: tensors, and the tables of an index."""
        tensors = {p: load_file(p) for p in sorted(self.folder.rglob("*.safetensors"))}
        tables = {p: _tables(p) for p in self.folder.rglob("features.db")}
        return {str(p.relative_to(self.folder)): each for p, each in (tensors | tables).items()}


def _heads(folder: Path) -> None:
    """An SAE on head outputs, which feature circuits read."""
    sae = SAE(32, 48, Choice(4), seed=3)
    sae.origin = Origin(SECOND_HOOK)
    sae.save(folder / "sae")


def _tables(path: Path) -> dict[str, list]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
        return {name: connection.execute(f"select * from {name}").fetchall() for (name,) in names}


def apart(mine: Any, theirs: Any, at: str = "") -> list[str]:
    """Where two documents, or what they hold, differ: by name, with both values."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        if mine.keys() != theirs.keys():
            return [f"{at}: {sorted(mine)} / {sorted(theirs)}"]
        names = [name for name in mine if name not in VARYING]
        return [one for name in names for one in apart(mine[name], theirs[name], f"{at}/{name}")]
    if isinstance(mine, list | tuple) and isinstance(theirs, list | tuple):
        if len(mine) != len(theirs):
            return [f"{at}: {len(mine)} / {len(theirs)} entries"]
        pairs = enumerate(zip(mine, theirs, strict=True))
        return [one for number, pair in pairs for one in apart(*pair, f"{at}/{number}")]
    if isinstance(mine, torch.Tensor):
        if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
            return [f"{at}: {mine.dtype} {list(mine.shape)} / {theirs.dtype} {list(theirs.shape)}"]
        off = (mine.double() - theirs.double()).abs().max() if mine.numel() else 0.0
        size = theirs.double().abs().max() if mine.numel() else 0.0
        return [] if off <= CLOSE * size else [f"{at}: off by {off:.2g}, largest {size:.2g}"]
    if isinstance(mine, float) and isinstance(theirs, float):
        return [] if mine == pytest.approx(theirs, CLOSE, CLOSE) else [f"{at}: {mine} / {theirs}"]
    return [] if mine == theirs else [f"{at}: {mine!r} / {theirs!r}"]


@pytest.fixture(autouse=True)
def small_sizes(tiny_model: Path, tiny_corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reproductions of a size that takes a second, on the tiny model and corpus; short fits."""
    captured = data.cache

    def of_the_corpus(settings: Settings, text: str, *options: Any, **more: Any) -> Path:
        return captured(settings, str(tiny_corpus), *options, **more)

    monkeypatch.setattr(data, "cache", of_the_corpus)
    sizes = {"features": 64, "tokens": 1024, "batch": 512, "calibration": 1024}
    plan = compare.Plan((3, 5), 4.0, (4e-3,), 1, 2500, 300, sizes)
    monkeypatch.setattr(compare, "QUICK", plan)
    monkeypatch.setattr(codes, "EPOCHS", 10)
    monkeypatch.setattr(site, "FROZEN_STEPS", 10)
    for module in (compare, g_sae):
        monkeypatch.setattr(module, "HOOK", HOOK)
    monkeypatch.setattr(data, "_model", lambda device, dtype: models.load(tiny_model, device))


@pytest.mark.parametrize("name", NAMES)
def test_a_verb_on_another_device_ends_with_the_cpus_numbers(
    name: str, lines: dict[str, str], tiny_run: Path, other_run: Path, tmp_path: Path
):
    runs, line = (tiny_run, other_run), f"{name.split()[0]} {lines[name]}"
    with probe.screening(torch.float32):  # as on processors that are slow at bfloat16
        with pretend_accelerator(), products() as done:
            there = Walk(tmp_path / "there", runs, line, NAME)
        here = Walk(tmp_path / "here", runs, line, "cpu")
    assert (there.code, here.code) == (0, 0)
    if name != "bench":
        assert apart(there.result, here.result) == []
        assert apart(there.files(), here.files()) == []
    assert done.away > 0 and done.here <= ON_THE_CPU * done.away, done


def test_every_verb_that_computes_is_walked(lines: dict[str, str]):
    walked = {name.split()[0] for name in NAMES}
    assert set(NAMES) == set(lines)
    modules = {verb: importlib.import_module(f"apps.cli.{module_of(verb)}") for verb in VERBS}
    computing = {verb for verb in VERBS if hasattr(modules[verb].Args, "device")}
    assert computing == walked | {"demo"}


def test_the_demo_hands_its_device_to_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[Any] = []
    monkeypatch.setattr(demo, "_train", seen.extend)
    for stage in (capture, evaluation, index):
        monkeypatch.setattr(stage, "run", seen.append)
    monkeypatch.setattr(compare_verb, "compared", lambda args: ([seen.append(args)], None))
    monkeypatch.setattr(compare_text, "features", lambda pair: "")
    line = ["demo", "--out", str(tmp_path / "run"), "--no-browse", "--device", NAME]
    with pretend_accelerator():
        assert main(line) == 0
    assert [args.device for args in seen] == [NAME] * 7  # two runs are trained, and indexed


TWINS = {
    "eval controls": (report, "references", lambda make: lambda *a: make(*a[:2], "cpu")),
    "dark-matter": (linear.Sums, "__init__", lambda make: lambda s, p, q, at: make(s, p, q)),
    "index": (SAE, "to", lambda to: lambda sae, device: sae),
    "circuits eap-ig": (running, "_acting", lambda make: lambda edit: make(_on_the_cpu(edit))),
}


def _on_the_cpu(edit: Any) -> Any:
    return edit.cpu() if isinstance(edit, torch.Tensor) else lambda acts: edit(acts).cpu()


@pytest.mark.parametrize("name", TWINS)
def test_a_tensor_that_stays_on_the_cpu_is_caught(
    name: str,
    lines: dict[str, str],
    tiny_run: Path,
    other_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    holder, attribute, spoil = TWINS[name]
    monkeypatch.setattr(holder, attribute, spoil(getattr(holder, attribute)))
    line = f"{name.split()[0]} {lines[name]}"
    with pretend_accelerator(), products() as done:
        try:
            Walk(tmp_path, (tiny_run, other_run), line, NAME)
        except (RuntimeError, ValueError) as error:
            assert "same device" in str(error) or "lies on" in str(error)
            return
    assert done.here > ON_THE_CPU * done.away, "nothing refused it: what is counted must"
