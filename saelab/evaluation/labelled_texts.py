"""Activations of one's own labelled texts: each at the last token of its text, or of its span.

Shapes: N texts, D width.
"""

from typing import Any

import numpy as np
import torch

from saelab.evaluation import probing, stretches
from saelab.evaluation.labelled import Labelled
from saelab.tasks.labelled_texts import LabelledTexts


def at_last_token(
    model: Any, hook: str, rows: LabelledTexts, bos: int | str | None = None
) -> Labelled:
    """Activations [N, D] at a hook on the last token of each text, with each property's labels; the
    same text twice is one group.

    bos: what starts a context, as of `models.tokens.bounds`. Raises UsageError for a text without a
    token, and for one that is longer than the model's context.

    >>> at_last_token(model, "blocks.1.hook_resid_post", read(Path("sentiment.csv"))).x.shape
    """
    known = stretches.contexts(model, rows, bos, cut=False)
    last = stretches.of_rows(known, rows)["last"]
    x_ND = stretches.averaged(model, hook, known.ids, {}, last)["neurons"]
    return Labelled(torch.from_numpy(x_ND).float(), last.labels, known.rows)


def in_first(groups_N: np.ndarray, seed: int = 0) -> np.ndarray:
    """[N] bool: whether each is in the first of two parts that share no group, drawn by a seed."""
    groups = np.unique(groups_N)
    return np.isin(groups_N, np.random.default_rng(seed).permutation(groups)[: len(groups) // 2])


def halves(known: Labelled, seed: int = 0) -> tuple[Labelled, Labelled]:
    """Two parts that share no text, drawn by a seed: to choose latents on, and to score."""
    first_N = in_first(known.groups, seed)
    parts = []
    for rows_N in (first_N, ~first_N):
        labels = {name: labels_N[rows_N] for name, labels_N in known.labels.items()}
        x = known.x[torch.from_numpy(rows_N)]
        parts.append(Labelled(x, labels, known.groups[rows_N]))
    return parts[0], parts[1]


def too_few(labels_N: np.ndarray, first_N: np.ndarray) -> str:
    """Why a label cannot be probed on two parts, "" where it can."""
    counts = [
        int((labels_N[part] == side).sum())
        for part in (first_N, ~first_N)
        for side in (True, False)
    ]
    if min(counts) >= probing.LEAST:
        return ""
    return f"{min(counts)} texts of a kind in one half, {probing.LEAST} are needed"


def with_parents(known: Labelled) -> Labelled:
    """The same, with a label for every parent: that of `keyword/for` is `keyword`, which a text has
    that has some label below it."""
    labels = dict(known.labels)
    for name, on_N in known.labels.items():
        steps = name.split("/")
        for parent in ("/".join(steps[:n]) for n in range(1, len(steps))):
            labels[parent] = labels.get(parent, False) | on_N
    return known._replace(labels=labels)
