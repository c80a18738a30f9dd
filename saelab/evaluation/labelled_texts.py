"""Activations of one's own labelled texts: each at the last token of its text.

Shapes: N texts, D width, T positions.
"""

from collections import defaultdict
from typing import Any

import numpy as np
import torch

from saelab.errors import UsageError
from saelab.evaluation import probing
from saelab.evaluation.labelled import Labelled
from saelab.models import running
from saelab.models.tokens import Encoder, bounds
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
    first = bounds(model.tokenizer, bos).bos
    start = [] if first is None else [first]
    ids = [[*start, *one] for one in Encoder(model.tokenizer).ids(rows.texts)]
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, tokens in enumerate(ids):
        if not len(start) < len(tokens) <= model.cfg.n_ctx:
            raise UsageError(
                f"text {number + 1} has {len(tokens) - len(start):,} tokens: give from 1 to "
                f"{model.cfg.n_ctx - len(start):,}"
            )
        by_length[len(tokens)].append(number)
    x_by_number: dict[int, torch.Tensor] = {}
    for length, numbers in by_length.items():
        size = running.contexts_per_pass(model, length)
        for at in range(0, len(numbers), size):
            part = numbers[at : at + size]
            acts = running.read(model, torch.tensor([ids[n] for n in part]), [hook])[hook]
            x_by_number.update(zip(part, acts[:, -1].flatten(1).float().cpu(), strict=True))
    _, groups_N = np.unique(rows.texts, return_inverse=True)
    labels_N = np.array(rows.labels)
    labels = {name: labels_N == name for name in rows.properties}
    return Labelled(torch.stack([x_by_number[n] for n in range(len(ids))]), labels, groups_N)


def halves(known: Labelled, seed: int = 0) -> tuple[Labelled, Labelled]:
    """Two parts that share no text, drawn by a seed: to choose latents on, and to score."""
    groups = np.unique(known.groups)
    chosen = np.random.default_rng(seed).permutation(groups)[: len(groups) // 2]
    first_N = np.isin(known.groups, chosen)
    parts = []
    for rows_N in (first_N, ~first_N):
        labels = {name: labels_N[rows_N] for name, labels_N in known.labels.items()}
        x = known.x[torch.from_numpy(rows_N)]
        parts.append(Labelled(x, labels, known.groups[rows_N]))
    return parts[0], parts[1]


def too_few(train: Labelled, test: Labelled, label: str) -> str:
    """Why a label cannot be probed, "" where it can."""
    counts = [
        int((part.labels[label] == side).sum()) for part in (train, test) for side in (True, False)
    ]
    if min(counts) >= probing.LEAST:
        return ""
    return f"{min(counts)} texts of a kind in one half, {probing.LEAST} are needed"
