"""Fixtures shared by all tests: real assets where they exist, and one tiny model, corpus, cache and
run for the whole session."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.native import natively_where_there_is_a_card

ROOT = Path(__file__).parents[1]
HOOK = "blocks.0.hook_resid_post"
SECOND_HOOK = "blocks.1.attn.hook_z"

torch.set_num_threads(1)
natively_where_there_is_a_card()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests at a card's real sizes are skipped where there is none, and say so. What a test or its
    fixtures draw without a seed of their own is the same in every order of the tests."""
    torch.manual_seed(0)
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and there is none here")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder of real third-party models and texts; skips where it is absent."""
    folder = Path(os.environ.get("SAELAB_ASSETS", ROOT.parent / "shared" / "assets"))
    if not folder.is_dir():
        pytest.skip(f"no test assets at {folder}")
    return folder


@pytest.fixture(scope="session")
def bundled() -> str:
    """The name of the bundled model; skips in a checkout without its weights."""
    if not (ROOT / "data" / "bundled" / "model.safetensors").is_file():
        pytest.skip("the bundled model's weights are not in this checkout")
    return "bundled"


def read_only(folder: Path) -> Iterator[Path]:
    """The folder for a session's tests, which fails at their end if one of them wrote into it: what
    others find there would depend on their order."""

    def files() -> dict[Path, tuple[int, int]]:
        of = {path: path.stat() for path in folder.rglob("*")}
        return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in of.items()}

    before = files()
    yield folder
    changed = [path for path, stat in files().items() if before.get(path) != stat]
    assert not changed, f"tests share {folder.name} and one wrote into it: {changed}"


def make_model(
    folder: Path, seed: int = 0, *, n_embd: int = 32, n_layer: int = 2, n_head: int = 4
) -> Path:
    """A random 2-layer GPT-2 of width 32 and 4 heads, or another shape, of context 32, with a
    byte-level tokenizer, in Hugging Face layout."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0} | {character: i + 1 for i, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, model_max_length=32
    )
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=257,
        n_positions=32,
        n_embd=n_embd,
        n_layer=n_layer,
        n_head=n_head,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    for parameter in model.parameters():
        parameter.data *= 3
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of a tiny random model."""
    yield from read_only(make_model(tmp_path_factory.mktemp("models") / "tiny"))


def make_corpus(folder: Path) -> Path:
    """90 text files of random words, ten of which are held out by their names."""
    from saelab.documents import held_out

    rng = random.Random(0)
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()
    names = [f"doc{number}.txt" for number in range(400)]
    for name in [n for n in names if held_out(n)][:10] + [n for n in names if not held_out(n)][:80]:
        (folder / name).write_text(" ".join(rng.choice(words) for _ in range(60)) + f"\n{name}\n")
    return folder


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of 90 text files of random words, ten of which are held out by their names."""
    yield from read_only(make_corpus(tmp_path_factory.mktemp("corpus")))


def make_cache(model: Path | str, text: Path | str, out: Path, **options) -> Path:
    """Capture both hooks of the tiny model into `out` in shards of 16 contexts."""
    from dataclasses import replace

    from saelab import models
    from saelab.activations.from_text import from_text
    from saelab.activations.writer import write

    loaded = models.load(model)
    options = {"n_tokens": 16_000, "dtype": "float32", "hooks": [HOOK, SECOND_HOOK], **options}
    source = from_text(loaded, str(text), options.pop("hooks"), options.pop("n_tokens"), **options)
    source.plan = replace(source.plan, shard_contexts=64)
    return write(source, out)


@pytest.fixture(scope="session")
def tiny_cache(
    tiny_model: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A finished cache of the tiny model over the tiny corpus, two hooks, float32. Tests that
    change it copy it."""
    folder = tmp_path_factory.mktemp("caches") / "tiny"
    yield from read_only(make_cache(tiny_model, tiny_corpus, folder))


def make_run(cache: Path, out: Path) -> Path:
    """Train on the first hook of a cache of the tiny model."""
    import training

    config = training.Config(
        cache=str(cache),
        out=str(out),
        hook=HOOK,
        features=64,
        k=4,
        tokens=40_000,
        batch=256,
        lr=0.003,
    )
    return training.train(config)


@pytest.fixture(scope="session")
def tiny_run(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished training run on the tiny cache. Tests that write into it copy it."""
    yield from read_only(make_run(tiny_cache, tmp_path_factory.mktemp("runs") / "tiny"))
