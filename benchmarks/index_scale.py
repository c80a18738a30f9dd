"""The feature index at many features: how long it takes to build beside one bare encoding pass, in
how much memory, and how quickly a server answers from it.

    python benchmarks/index_scale.py --features 100000 --out benchmarks/results/index_MACHINE.json
    python benchmarks/index_scale.py --features 16384 --k 8 --tokens 100000 400000 1600000

A synthetic SAE of little width over synthetic tokens: what is measured is the index, not the SAE.
Every token has its own direction, and so does the token before it; features are random directions.
Every index is built in a process of its own, and served by another, so that each states its own
memory; the bare pass is timed in the process that builds.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from saelab import SAE, Choice, sparsify
from saelab.activations import Contexts
from saelab.activations.source import all_but_first
from saelab.features import build
from saelab.features.reader import FeatureIndex
from saelab.files import write_json
from saelab.origin import Identity, Origin

VOCABULARY, T, CHUNK = 4096, 256, 64
HOOK = "blocks.1.hook_resid_post"


class Corpus:
    """Synthetic activations of width D, a chunk at a time; tokens are as frequent as words are."""

    def __init__(self, n_tokens: int, width: int, seed: int = 0) -> None:
        self.n_contexts, self.width, self.seed = -(-n_tokens // (T - 1)), width, seed
        generator = torch.Generator().manual_seed(seed)
        self.directions_VD = torch.randn(VOCABULARY, width, generator=generator)
        self.share_V = 1 / torch.arange(1, VOCABULARY + 1)

    def document_names(self) -> list[str]:
        """One document per context."""
        return [f"file{number}.py" for number in range(self.n_contexts)]

    def contexts(self, hook: str, split: str) -> Iterator[Contexts]:
        """The chunks, whatever the hook and split."""
        for first in range(0, self.n_contexts, CHUNK):
            n = min(CHUNK, self.n_contexts - first)
            generator = torch.Generator().manual_seed(self.seed + 1 + first)
            tokens = torch.multinomial(self.share_V, n * T, True, generator=generator).view(n, T)
            acts = self.directions_VD[tokens] + 0.5 * self.directions_VD[tokens.roll(1, 1)]
            acts += 0.5 * torch.randn(acts.shape, generator=generator)
            owners = (first + torch.arange(n))[:, None].expand(n, T)
            yield Contexts(tokens, acts, owners, all_but_first(tokens))


class Words:
    """A vocabulary of distinct words."""

    all_special_ids = (0,)

    def __len__(self) -> int:
        return VOCABULARY

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """A word per id."""
        return [f"▁w{number:x}" if number % 3 else f"x{number:x}" for number in ids]


def made(args: argparse.Namespace) -> SAE:
    """A random SAE of that shape."""
    sae = SAE(args.width, args.features, Choice(args.k), seed=0)
    sae.origin = Origin(HOOK, model=Identity("synthetic words"), seed=0, tokens=0)
    return sae


def memory() -> float:
    """Megabytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def encode(sae: SAE, corpus: Corpus) -> None:
    """One bare encoding pass."""
    frozen = sae.frozen()
    with torch.no_grad():
        for chunk in corpus.contexts(HOOK, "train"):
            frozen.encode(chunk.acts)


def built(args: argparse.Namespace) -> dict:
    """One bare encoding pass, then building the index, in one process: seconds of each, and what
    the second takes more memory than the first."""
    sae, corpus = made(args), Corpus(args.tokens[0], args.width)
    encode(sae, Corpus(CHUNK * T, args.width))  # what is loaded on first use
    started = time.process_time()
    encode(sae, corpus)
    encoded, mb_encoded = time.process_time(), memory()
    build.build(sae, corpus, HOOK, args.path, tokenizer=Words())  # type: ignore[arg-type]
    ended, mb = time.process_time(), memory()
    return {
        "tokens": args.tokens[0],
        "encode_cpu_s": encoded - started,
        "build_cpu_s": ended - encoded,
        "build_over_encode": (ended - encoded) / (encoded - started),
        "mb_encoded": mb_encoded,
        "mb": mb,
        "kb_per_feature": 1024 * (mb - mb_encoded) / args.features,
        "file_mb": args.path.stat().st_size / 2**20,
    }


def serve(args: argparse.Namespace) -> dict:
    """Opening, pages of features, pages of lists, searches."""
    rng = np.random.default_rng(0)
    started = time.process_time()
    opened = FeatureIndex(args.path)
    opened.table(limit=50)
    answer = {"open_s": time.process_time() - started}
    numbers = rng.integers(0, args.features, 300).tolist()
    answer["page_ms"] = _spread(lambda n: (opened.feature(n), opened.examples(n)), numbers)
    sorts = ["interest", "density", "mean", "max", "feature"] * 8
    answer["list_ms"] = _spread(
        lambda at: opened.table(sorts[at], limit=50, offset=args.features // 2), range(len(sorts))
    )
    queries = [*(f"w{number:x}" for number in rng.integers(1, VOCABULARY, 30)), "w", "x1", "1 2"]
    for place in ("tokens", "contexts"):
        answer[f"search_{place}_ms"] = _spread(lambda q, p=place: opened.search(q, [p]), queries)
    answer["search_all_ms"] = _spread(opened.search, queries)
    return answer | {"mb": memory()}


def _spread(ask, arguments) -> dict:
    """Milliseconds of CPU of each call, as other work may go on beside it: median, 95th percentile,
    most."""
    times = []
    for argument in arguments:
        started = time.process_time()
        ask(argument)
        times.append(1000 * (time.process_time() - started))
    return {
        "median": float(np.median(times)),
        "p95": float(np.percentile(times, 95)),
        "most": max(times),
    }


PARTS = {"build": built, "serve": serve}
NUMBERS = ("features", "width", "k")


def main() -> None:
    """Run a part and print it, or all of them and write what they said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--tokens", type=int, nargs="+", default=[200_000])
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--path", type=Path, help="where the last index is kept")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.part:
        print(json.dumps(PARTS[args.part](args)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = args.path or Path(folder) / "features.db"
        builds = [_run("build", args, n_tokens, path) for n_tokens in args.tokens]
        serving = _run("serve", args, args.tokens[-1], path)
    result = {
        "machine": platform.processor() or platform.machine(),
        "dtype": "float32",
        "threads": 1,
        "command": " ".join(sys.argv),
        "sparsifier": sparsify.word(Choice(args.k)),
        **{name: getattr(args, name) for name in NUMBERS},
        "builds": builds,
        "serve": serving,
    }
    if args.out:
        write_json(args.out, result)


def _run(part: str, args: argparse.Namespace, n_tokens: int, path: Path) -> dict:
    """A part in a process of its own."""
    shape = [word for name in NUMBERS for word in (f"--{name}", str(getattr(args, name)))]
    where = ["--part", part, "--path", str(path), "--tokens", str(n_tokens)]
    command = [sys.executable, __file__, *where, *shape]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print(said, flush=True)
    return json.loads(said)


if __name__ == "__main__":
    main()
