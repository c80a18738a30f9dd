"""What steering costs the model on text: the change of its loss, with an interval over documents.

Shapes: C contexts, T positions, D width, P predictions.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from saelab.activations import Cache, Contexts
from saelab.analysis.steering.edits import Push
from saelab.errors import UsageError
from saelab.evaluation.downstream import Splice, predicting, spliced
from saelab.models import heads, resolve_hook
from saelab.sae import SAE
from saelab.statistics import DocumentSums, Estimate, difference, over_documents, weights

CONTEXTS = 16  # in one pass, at most
TOKENS = 10_000


class LossChange(NamedTuple):
    """Mean cross-entropy per token on held-out text, in nats."""

    clean: Estimate
    """of the model as it is"""
    changes: dict[str, Estimate]
    """by name of the push: steered less clean, paired by document"""
    n_predictions: int
    """tokens predicted"""
    n_documents: int
    """that they are of"""


@torch.no_grad()
def loss_change(
    model: Any,
    sae: SAE,
    pushes: Mapping[str, Push],
    cache: Cache,
    n_tokens: int = TOKENS,
    seed: int = 0,
) -> LossChange:
    """The change of the loss by each push at every position that counts, on the first n_tokens
    held-out tokens of a cache, in whole contexts.

    Raises UsageError for a model that predicts no tokens, and a cache that has no held-out text.

    >>> change = loss_change(model, sae, {"steered": push(sae, edits)}, cache)
    >>> change.changes["steered"].excludes_zero
    """
    heads.refuse_without_losses(model)
    read, explained = (resolve_hook(model, name) for name in sae.origin.hooks)
    sums = DocumentSums()
    for part in _contexts(cache, sae.origin.hook, n_tokens):
        splice = Splice(model, part.tokens, explained, [read])
        moved = {name: push(splice.acts[read]) for name, push in pushes.items()}
        replaced = {name: splice.acts[explained] + by for name, by in moved.items()}
        compared = spliced(splice, replaced, part.counted)
        losses = {name: each.loss for name, each in compared.items()}
        owners_P = part.documents[predicting(part.counted)]
        sums.add(owners_P, {"n": torch.ones_like(losses["clean"]), **losses})
    if not sums.rows:
        raise UsageError(f"{cache.path} has no held-out tokens: capture more")
    return _changes(sums, list(pushes), seed)


def _contexts(cache: Cache, hook: str, n_tokens: int) -> Iterator[Contexts]:
    """Held-out contexts, a few at a time, until they hold n_tokens that count."""
    for chunk in cache.contexts(hook, "held_out"):
        first = 0
        while first < len(chunk.tokens) and n_tokens > 0:
            wanted = -(-n_tokens // max(1, int(chunk.counted[first].sum())))
            part = chunk.part(slice(first, first + min(CONTEXTS, wanted)))
            first += len(part.tokens)
            n_tokens -= int(part.counted.sum())
            yield part


def _changes(sums: DocumentSums, names: list[str], seed: int) -> LossChange:
    table = sums.table()
    weights_RG = weights(len(sums.documents), seed)
    columns = {name: np.stack([table[name], table["n"]], 1) for name in ("clean", *names)}
    clean = over_documents(columns["clean"], _mean, weights_RG)
    changes = {
        name: difference(columns[name], columns["clean"], _mean, weights_RG) for name in names
    }
    return LossChange(clean, changes, int(table["n"].sum()), len(sums.documents))


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]
