"""Verbs that run a language model on the card: capture of a little text, train, eval."""

import importlib.util
import tempfile

from benchmarks.gpu.card import Card, Rows

HOOK = "blocks.1.hook_resid_post"
NEEDED = ("transformer_lens", "transformers", "tyro")


def verbs(card: Card) -> Rows:
    """Exit codes of the verbs with `--device`; skipped where a library that they stand on is
    missing."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        yield "skipped", f"not installed here: {', '.join(missing)}"
        return
    if card.tiny:
        yield "skipped", "the tiny form runs no language model"
        return
    from apps.cli import main

    with tempfile.TemporaryDirectory() as folder:
        cache, run = f"{folder}/cache", f"{folder}/run"
        there = ["--device", card.device]
        for line in (
            ["capture", "--text", "stdlib", "--hook", HOOK, "--tokens", "40000", "--out", cache,
             *there],
            ["train", "--cache", cache, "--out", run, "--features", "1024", "--k", "16",
             "--tokens", "100000", *there],
            ["eval", run, "--tokens", "5000", *there],
            ["index", run, "--tokens", "20000", *there],
        ):  # fmt: skip
            yield line[0], {"value": main(line), "allowed": 0}
