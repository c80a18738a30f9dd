"""The verbs that write, each as one command line in a process of its own."""

import json
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from saelab.activations import plan
from tests.conftest import HOOK, make_cache, make_corpus, make_model
from tests.pictures import tiny

SHARD_BYTES = 48 * 32 * 32 * 4  # of 48 contexts of the tiny model
SWEEP = "--features 64 --batch 128 --checkpoint-every 8 --log-every 3 --resume"
TRAIN = f"--k 4 {SWEEP}"


class Verb(NamedTuple):
    """One command line, seen from a folder beside `model`, `text`, `cache` and `run`."""

    name: str
    words: str
    """what is typed after `saelab`"""
    into_run: bool = False
    """whether it writes into a finished run, which is then copied first"""
    events: bool = False
    """whether it is killed at every file event too"""


VERBS = (
    Verb("train", f"train --cache ../cache --out run --tokens 2560 {TRAIN}", events=True),
    Verb(
        "sweep",
        f"train ../sweep.yaml --cache ../cache --out runs --tokens 1920 {SWEEP}",
        events=True,
    ),
    Verb(
        "live",
        f"train --live --model ../model --text ../text --hook {HOOK} --out run --tokens 2560 "
        f"--ring 600 --keep 2000 {TRAIN}",
        events=True,
    ),
    Verb(
        "capture",
        f"capture --model ../model --text ../text --hook {HOOK} --tokens 4k --out cache",
        events=True,
    ),
    Verb(
        "dictionary",
        "train --dictionary orthogonal --cache ../cache --out run --k 4 --tokens 2560 --resume",
    ),
    Verb(
        "capture images",
        "capture --model ../vit --images ../images --hook blocks.0.hook_out --out cache",
        events=True,
    ),
    Verb("index", "index run --tokens 500", True, True),
    Verb("explain", "explain run --tokens 500 --held-out 100", True),
    Verb("eval", "eval run --tokens 500", True),
    Verb("compare", "compare run ../run --tokens 500", True),
    Verb(
        "error caches",
        "dark-matter run --tokens 2000 --held-out 300 --errors errors",
        True,
        True,
    ),
    Verb(
        "compress",
        "compress --cache ../cache --out small --ridge 1e-6 --rounds 1 --tokens 500 --held-out 300",
    ),
    Verb(
        "graph",
        "graph --run ../run --prompt abcab --prompt xyzxy --ablated 2 --attention 2 --out graphs",
    ),
    Verb("supervise", "supervise run --prompts ../prompts.jsonl --changes 2", True),
)


def prepare(place: Path) -> None:
    """What the verbs read: a model, a text, a cache, a finished run, a recipe and prompts."""
    plan.SHARD_BYTES = SHARD_BYTES
    (place / "text").mkdir(parents=True)
    make_corpus(place / "text")
    make_model(place / "model")
    tiny.folder("ViTModel", place / "vit")
    tiny.noise(place / "images", 60)
    make_cache(place / "model", place / "text", place / "cache", n_tokens=6000, hooks=[HOOK])
    (place / "sweep.yaml").write_text("k: [3, 4]\n")
    rows = (
        {"prompt": f"{n}{a}{b}", "answers": [a], "attributes": {"x": a, "y": b}}
        for n, a, b in product("1234", "abc", "ef")
    )
    (place / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = place / "first"
    first.mkdir()
    ended(VERBS[0], first)
    shutil.move(first / "run", place / "run")


def start(verb: Verb, folder: Path, before: Callable[[Path], object] | None = None) -> int:
    """Fork a process that runs a verb in a folder, after `before`; its number."""
    if verb.into_run and not (folder / "run").exists():
        shutil.copytree(folder.parent / "run", folder / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork where threads run
        child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.chdir(folder)
        # The one that progress bars take is shared by forks: who is killed with it keeps it.
        tqdm.set_lock(threading.RLock())
        log = os.open(f"../{folder.name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if before:
            before(folder)
        from apps.cli import main

        sys.argv = ["saelab", *verb.words.split()]
        code = main(sys.argv[1:])
        sys.stdout.flush()
    finally:
        os._exit(code)


def ended(verb: Verb, folder: Path, before: Callable[[Path], object] | None = None) -> float:
    """Run a verb to its end in a fork; the processor time it took. Raises RuntimeError if it does
    not end well."""
    _, status, used = os.wait4(start(verb, folder, before), 0)
    if status:
        said = (folder.parent / f"{folder.name}.log").read_text()[-500:]
        raise RuntimeError(f"{verb.words}: status {status}: {said}")
    return used.ru_utime + used.ru_stime
