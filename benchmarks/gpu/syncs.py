"""Where a training step waits for the card, line by line."""

import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.card import Card, Rows
from benchmarks.gpu.step import trained
from saelab.sparsify import Choice


def syncs(card: Card) -> Rows:
    """Synchronisations of one full step by source line."""
    if not card.is_cuda:
        yield "skipped", "nothing waits for a CPU"
        return
    shape = card.shapes()["laptop"]
    for form in (Choice(shape.k), Choice(shape.k, "batch"), Choice(shape.k, "feature")):
        mine = trained(card, shape, form)
        mine.full()
        card.wait()
        lines = waits(mine.full)
        yield str(form), {"syncs": sum(lines.values()), "by line": dict(lines.most_common())}


def waits(work: Any) -> "Counter[str]":
    """How often each line of the program makes the host wait for the card."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Counter(
        f"{Path(w.filename).parent.name}/{Path(w.filename).name}:{w.lineno}"
        for w in caught
        if "synchroniz" in str(w.message)
    )
