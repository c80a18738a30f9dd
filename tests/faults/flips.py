"""Random single-bit flips and cuts of every kind of file that saelab writes: each is refused by the
file's name, or changes nothing.

    python -m tests.faults.flips --n 500 --out benchmarks/results/flips.json
"""

import argparse
import contextlib
import datetime
import hashlib
import io
import json
import platform
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

import saelab
from saelab import SAE, digests
from saelab.activations import Cache
from saelab.analysis.dark_matter import map_file
from saelab.errors import FailedRun, UsageError
from saelab.inspection import inspect
from saelab.models import factors
from saelab.origin import Origin
from saelab.runs import RunFolder
from tests.analysis.dictionaries import Z, dictionary
from tests.conftest import HOOK, make_cache, make_corpus, make_model, make_run
from training import checkpoint

MAP = "dark-matter.safetensors"
CUTS = 0.2  # share of the trials that cut the file; the others flip one bit
ENDS = ("refused", "equal", "different", "unnamed", "crashed")


class Kind(NamedTuple):
    """One kind of file."""

    name: str
    """what it is called in the result"""
    files: str
    """a pattern below the folder that holds run and cache"""
    read: Callable[[Path], Any]
    """all that a reader gets of the kind, from that folder"""


def _sae(place: Path) -> Any:
    sae = SAE.load(place / "run")
    return sae.state_dict(), repr(sae.sparsify), sae.origin.to_dict(), sae.transcoder


def _cache(place: Path) -> Any:
    cache = Cache(place / "cache")
    manifest = {name: value for name, value in cache.manifest.items() if name != digests.FIELD}
    hooks = [(hook, split) for hook in cache.hooks for split in ("train", "held_out")]
    chunks = [list(cache.contexts(hook, split)) for hook, split in hooks]
    moments = [cache.moments(hook, split) for hook, split in hooks]
    return manifest, chunks, moments, cache.document_names()


def _checkpoint(place: Path) -> Any:
    folder = place / "run/checkpoints"
    return checkpoint.load(folder, checkpoint.newest_of_all([folder]))


def _documents(folder: Path) -> Any:
    return {
        kind: [{k: v for k, v in each.items() if k != digests.FIELD} for each in several]
        for kind, several in RunFolder(folder).documents().items()
    }


KINDS = (
    Kind("sae weights", "run/sae/sae.safetensors", _sae),
    Kind("sae header", "run/sae/sae.json", _sae),
    Kind("checkpoint", "run/checkpoints/step-*", _checkpoint),
    Kind("shard", "cache/0*.safetensors", _cache),
    Kind("moments", "cache/moments-*.safetensors", _cache),
    Kind("manifest", "cache/manifest.json", _cache),
    Kind("shard lines", "cache/shards.jsonl", _cache),
    Kind("documents", "cache/documents.json", _cache),
    Kind("report", "run/report.json", lambda place: _documents(place / "run")),
)


def _verified(file: str) -> Callable[[Path], Any]:
    """What a digest on demand says of a file of the run; its facts are not all that it holds."""

    def read(place: Path) -> Any:
        seen = inspect(place / "run" / file, verify=True)
        if seen.damaged:
            raise FailedRun(f"{seen.damaged[0].file}: {seen.damaged[0].problem}")
        return seen

    return read


# Files of further verbs; databases are read in parts, and checked as wholes when that is asked for.
WHOLE = "explanations.db"
MORE = (
    Kind("dark-matter map", f"run/{MAP}", lambda place: map_file.read(place / "run" / MAP)),
    Kind("index, its digest asked for", "run/features.db", _verified("features.db")),
    Kind("explanations, their digest asked for", f"run/{WHOLE}", _verified(WHOLE)),
    Kind(
        "factors",
        f"small/factors/{factors.NAME}",
        lambda place: factors.whole_weights(place / "small/factors"),
    ),
    Kind("graph", "graphs/*.graph.json", lambda place: _documents(place / "graphs")),
    Kind("table of graphs", "graphs/graphs.json", lambda place: _documents(place / "graphs")),
    Kind("heads", "z/heads.json", lambda place: _documents(place / "z")),
)


def print_of(value: Any) -> str:
    """A digest of anything that readers return: tensors by their bytes."""
    digest = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, torch.Tensor):
            digest.update(f"{part.dtype} {list(part.shape)}".encode())
            digest.update(part.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
        elif isinstance(part, Mapping):
            add([[name, part[name]] for name in sorted(part)])
        elif isinstance(part, list | tuple):
            digest.update(f"[{len(part)}".encode())
            for each in part:
                add(each)
        else:
            digest.update(repr(part).encode())

    add(value)
    return digest.hexdigest()


def damage(whole: bytes, rng: random.Random) -> tuple[str, bytes]:
    """The bytes of a file with one bit flipped, or without their end."""
    at = rng.randrange(len(whole))
    if rng.random() < CUTS:
        return "cut", whole[:at]
    return "flip", whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]


def trial(kind: Kind, file: Path, place: Path, right: str) -> str:
    """One of ENDS: what reading says of a damaged file."""
    digests._right.clear()  # each trial reads as a new process does
    try:
        return "equal" if print_of(kind.read(place)) == right else "different"
    except (UsageError, FailedRun) as error:
        return "refused" if file.name in str(error) else "unnamed"
    except Exception as error:
        print(f"{file}: {type(error).__name__}: {error}", file=sys.stderr)
        return "crashed"


def trials(place: Path, n: int, seed: int, kinds: Sequence[Kind] = KINDS) -> dict[str, Counter]:
    """How often each kind of file was flipped and cut, and how that ended: n trials in all."""
    rng, counts = random.Random(seed), {kind.name: Counter() for kind in kinds}
    rights = {kind.name: print_of(kind.read(place)) for kind in kinds}
    for number in range(n):
        kind = kinds[number % len(kinds)]
        file = rng.choice(sorted(place.glob(kind.files)))
        whole = file.read_bytes()
        how, damaged = damage(whole, rng)
        file.write_bytes(damaged)
        try:
            end = trial(kind, file, place, rights[kind.name])
        finally:
            file.write_bytes(whole)
        counts[kind.name].update([how, end])
    return counts


def run_verb(*words: str | Path) -> None:
    """Run a verb in silence."""
    from apps.cli import main

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        if main([*map(str, words)]):
            raise RuntimeError(f"{' '.join(map(str, words))} failed")


def prepare(place: Path) -> None:
    """A tiny model's cache and a run into which every verb has written."""
    model, text = make_model(place / "model"), place / "text"
    text.mkdir()
    cache = make_cache(model, make_corpus(text), place / "cache", n_tokens=6000, hooks=[HOOK, Z])
    run, few = make_run(cache, place / "run"), ("--tokens", "500")
    for verb in ("eval", "index", "explain", "dark-matter"):
        run_verb(verb, run, *few)
    small = ("--ridge", "1e-6", "--rounds", "1", "--held-out", "300", *few)
    run_verb("compress", "--cache", cache, "--out", place / "small", *small)
    of_heads = dictionary(Z)
    of_heads.origin = Origin(Z, cache=str(cache))
    of_heads.save(place / "z" / "sae")
    run_verb("circuits", "--heads", place / "z", "--model", model, *few)
    traces(place, run)


def traces(place: Path, run: Path) -> None:
    """Two graphs of a run."""
    texts = ("--prompt", "abcab", "--prompt", "xyzxy", "--ablated", "2", "--attention", "2")
    run_verb("graph", "--run", run, *texts, "--out", place / "graphs")


def machine() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return {"processor": processor, "system": platform.system(), "torch": torch.__version__}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=500, help="trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        counts = trials(Path(folder), args.n, args.seed, (*KINDS, *MORE))
    names = ("flip", "cut", *ENDS)
    rows = {kind: {name: row[name] for name in names} for kind, row in counts.items()}
    result = {
        "schema": "saelab/flips/1",
        "saelab_version": saelab.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "seed": args.seed,
        "n": args.n,
        "kinds": rows,
        "together": {name: sum(row[name] for row in rows.values()) for name in names},
    }
    text = json.dumps(digests.sealed(result), indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
