"""What compressed matrices cost: the change of their own outputs and of the model's loss, on
held-out text, with intervals over documents.

Shapes: C contexts, T positions, N tokens, P predictions, I inputs, O outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.activations import Cache
from saelab.analysis.compression.matrices import Matrix
from saelab.analysis.compression.moments import pieces, rows
from saelab.errors import UsageError
from saelab.evaluation.downstream import predicting
from saelab.models import losses, running
from saelab.statistics import DocumentSums, Estimate, difference, over_documents, weights


class Effect(NamedTuple):
    """On held-out text; losses are cross-entropies per token in nats."""

    original: Estimate
    """loss of the model as it is"""
    compressed: Estimate
    """loss of the compressed one"""
    difference: Estimate
    """the second less the first, paired by document"""
    outputs: dict[str, Estimate]
    """by parameter: ||x (W - W')||^2 over ||x W||^2, both summed over tokens; x is what the matrix
    reads in the model as it is"""
    n_predictions: int
    n_documents: int


@torch.no_grad()
def effect(
    model: Any,
    compressed: Any,
    matrices: Sequence[Matrix],
    cache: Cache,
    n_tokens: int,
    seed: int = 0,
    progress: Callable[[int], object] = lambda done: None,
) -> Effect:
    """What a compressed model loses on the first n_tokens held-out tokens of a cache.

        effect(model, models.load("out/factors"), matrices(model), cache, 20_000).difference

    Raises UsageError for a cache without held-out tokens.
    """
    sums, table = losses_of([model, compressed], cache, n_tokens, progress, matrices)
    if not sums.rows:
        raise UsageError(f"{cache.path} has no held-out tokens: capture more")
    weights_RG = weights(len(sums.documents), seed)
    mine, theirs = (_pair(table, number, "n") for number in ("1", "0"))
    outputs = {}
    for name in (matrix.name for matrix in matrices):
        share = _pair(table, f"change {name}", f"size {name}")
        outputs[name] = over_documents(share, _ratio, weights_RG, null=1.0)
    return Effect(
        over_documents(theirs, _ratio, weights_RG),
        over_documents(mine, _ratio, weights_RG),
        difference(mine, theirs, _ratio, weights_RG),
        outputs,
        int(table["n"].sum()),
        len(sums.documents),
    )


def losses_of(
    models: Sequence[Any],
    cache: Cache,
    n_tokens: int,
    progress: Callable[[int], object] = lambda done: None,
    matrices: Sequence[Matrix] = (),
) -> tuple[DocumentSums, dict[str, np.ndarray]]:
    """Sums by document: predictions `n`, the loss of each model by its number, and of matrices, of
    the first model and as the second has them, how much outputs change and how large they are."""
    sums, n_read = DocumentSums(), 0
    at_once = running.contexts_per_pass(models[0], cache.context, logits=True)
    changes = {m.name: _change(m, models[0], models[1]) for m in matrices}
    for piece in pieces(cache, "held_out", n_tokens, at_once):
        predicting_CT = predicting(piece.counted)
        columns = {"n": torch.ones(int(predicting_CT.sum()))}
        for number, model in enumerate(models):
            edits = _measuring(changes, matrices, sums, piece) if not number else []
            logits_CTV = running.logits(model, piece.tokens, edits)
            loss_CT = losses.next_token_loss(logits_CTV, piece.tokens)
            columns[str(number)] = loss_CT[predicting_CT[:, :-1].to(loss_CT.device)]
        sums.add(piece.owners[predicting_CT], columns)
        n_read += int(piece.counted.sum())
        progress(n_read)
    return sums, sums.table() if sums.rows else {}


def _change(matrix: Matrix, model: Any, compressed: Any) -> tuple[Tensor, Tensor]:
    """W and W - W', both [I, O]."""
    W_IO = matrix.weight(model)
    return W_IO, W_IO - matrix.weight(compressed)


def _measuring(
    changes: Mapping[str, tuple[Tensor, Tensor]],
    matrices: Sequence[Matrix],
    sums: DocumentSums,
    piece: Any,
) -> list[tuple[str, Callable[[Tensor], None]]]:
    """What is to act at the hooks that the matrices read."""

    def measure(matrix: Matrix, acts: Tensor) -> None:
        x_NI = rows(acts, piece.counted)
        W_IO, change_IO = changes[matrix.name]
        columns = {
            f"size {matrix.name}": (x_NI @ W_IO).square().sum(1),
            f"change {matrix.name}": (x_NI @ change_IO).square().sum(1),
        }
        sums.add(piece.owners[piece.counted], columns)

    return [(matrix.hook, partial(measure, matrix)) for matrix in matrices]


def _pair(table: Mapping[str, np.ndarray], above: str, below: str) -> np.ndarray:
    return np.stack([table[above], table[below]], 1)


def _ratio(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]
