"""A short real training on the card beside the CPU's, and the later steps of its life: saved,
loaded, resumed.

Shapes: B tokens, D width.
"""

import contextlib
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.card import Card, Rows, attempt

STEPS, BATCH = 60, 512
TINY_STEPS, TINY_BATCH = 3, 8  # the interpreter takes milliseconds for each program
# One flipped near-tie makes two runs part, on two CPU backends too (4% of a loss after 60 steps):
# before that they differ by rounding, and after it in no direction. AuxK, which a card multiplies
# out in bfloat16, is left to the resumed run.
TOGETHER, TOLERANCE, ON_AVERAGE = 12, 1e-5, 0.02


def short_run(card: Card) -> Rows:
    """Losses of the same run on the card and on the CPU; then the card's run interrupted and
    resumed, which has to give the same bits."""
    import training
    from saelab import SAE

    steps, batch = (TINY_STEPS, TINY_BATCH) if card.tiny else (STEPS, BATCH)
    with tempfile.TemporaryDirectory() as folder:
        cache = _cache(Path(folder), 16 * batch)
        base = training.Config(
            cache=cache, features=32 if card.tiny else 4096, k=2 if card.tiny else 32,
            batch=batch, tokens=steps * batch, log_every=1, calibration=batch,
            checkpoint_every=max(1, steps // 3), dead_window=3 * batch, aux=0.0,
        )  # fmt: skip
        there = replace(base, out=f"{folder}/there", device=card.device, backend="triton")
        here = replace(base, out=f"{folder}/here", device="cpu", backend="reference")
        mine, theirs = (_losses(training.train(config)) for config in (there, here))
        first = zip(mine[:TOGETHER], theirs[:TOGETHER], strict=True)
        worst = max(abs(a - b) / b for a, b in first)
        apart = abs(sum(mine[TOGETHER:]) / sum(theirs[TOGETHER:]) - 1) if steps > TOGETHER else 0.0
        yield "losses, card", [mine[0], mine[-1]]
        yield "losses, CPU", [theirs[0], theirs[-1]]
        yield "largest relative difference at first", {"value": worst, "allowed": TOLERANCE}
        yield "later losses, mean, relative", {"value": apart, "allowed": ON_AVERAGE}
        whole = replace(there, out=f"{folder}/whole", aux=1 / 32)
        training.train(whole)
        again = partial(_resumed, whole, f"{folder}/again", steps // 2)
        yield "resumed to the same bits", attempt(again)
        yield "features of what loads again", SAE.load(f"{folder}/there").n_features


def _cache(folder: Path, n_tokens: int) -> str:
    """A cache of synthetic activations, which no language model is needed for."""
    from saelab.activations.from_arrays import from_arrays
    from saelab.activations.writer import write

    rng = np.random.default_rng(0)
    rows = rng.standard_normal((96, 32)).astype(np.float32)
    codes = rng.random((n_tokens, 96)) * (rng.random((n_tokens, 96)) < 0.05)
    acts = (codes @ rows).astype(np.float32) + 0.2
    return str(write(from_arrays(acts, context=16, dtype="float32"), folder / "cache"))


def _losses(folder: Any) -> list[float]:
    from training import rate

    return [row["loss"] for row in rate.rows(folder)]


def _resumed(config: Any, out: str, stop: int) -> bool:
    import training

    def interrupt(step: int, *_: object) -> None:
        if step == stop:
            raise KeyboardInterrupt

    config, whole = replace(config, out=out), Path(config.out)
    with contextlib.suppress(KeyboardInterrupt):
        training.train(config, progress=interrupt)
    training.train(config, resume=True)
    names = ("sae/sae.safetensors", "metrics.jsonl")
    return all((Path(out) / name).read_bytes() == (whole / name).read_bytes() for name in names)
