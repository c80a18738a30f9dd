"""Several SAEs at one place, measured in one pass over the same held-out tokens.

Shapes: N tokens, G documents, F features, P pairs of token and feature.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch

from saelab.activations import Cache
from saelab.code import Code
from saelab.errors import UsageError
from saelab.evaluation.measurement import Measurement
from saelab.evaluation.references import references
from saelab.evaluation.report import check_place, fires
from saelab.sae import SAE

PAIRS = 2**24  # of token and feature that are kept of each SAE: 200 MB


class Together(NamedTuple):
    """What one pass over the same tokens says of each SAE."""

    documents: list[int]
    """[G] that were read"""
    tables: dict[str, dict[str, np.ndarray]]
    """by SAE: sums by document of `evaluation.metrics`, [G] or [G, D]"""
    fired: dict[str, scipy.sparse.csr_array]
    """by SAE: [G, F] tokens of each document on which each feature fired"""
    alive: dict[str, np.ndarray]
    """by SAE: [F] bool, whether each feature fires on training tokens; empty if not asked for"""
    codes: dict[str, scipy.sparse.csr_array]
    """by SAE: [N, F] values on the first N tokens, as many as fit PAIRS for every SAE"""
    no_losses: str
    """why there are no losses of the model; "" if there are"""


@torch.no_grad()
def measure(
    saes: Mapping[str, SAE],
    cache: Cache,
    model: Any,
    *,
    n_tokens: int = 200_000,
    seed: int = 0,
    training: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Together:
    """SAEs in inference form, all at one place, by name, on up to n_tokens held-out tokens of a
    cache.

    training: also read which features fire in training. Raises UsageError if they are not at one
    place, or that is not the cache's.

    >>> together = measure({"a": a.frozen(), "b": b.frozen()}, cache, model)
    >>> paired(together.tables["a"], together.tables["b"], metrics.fvu, len(together.documents))
    """
    first, *others = saes.values()
    for other in others:
        if reason := first.origin.elsewhere(other.origin):
            raise UsageError(f"an SAE cannot be compared with the first: {reason}")
    for sae in saes.values():
        check_place(sae, cache)
    source, target = first.origin.hooks
    known = references(cache.moments(target, "train"), 1, first.W_dec.device)
    ablations = {name: known[name] for name in ("zero", "mean")}
    codes = _Codes(saes)
    run = Measurement(
        model, (source, target), cache.whole(source), dict(saes), ablations, watch=codes.add
    )
    run.read(cache, n_tokens, progress)
    documents = run.sums[next(iter(saes))].documents
    alive = {name: fires(sae, cache, seed) for name, sae in saes.items()} if training else {}
    return Together(
        documents,
        {name: run.sums[name].table(documents) for name in saes},
        {name: run.fired[name].table(documents) for name in saes},
        alive,
        codes.matrices(),
        run.no_losses,
    )


class _Codes:
    """The codes of the first tokens, while they fit."""

    def __init__(self, saes: Mapping[str, SAE]) -> None:
        self.widths = {name: sae.n_features for name, sae in saes.items()}
        self.pieces: dict[str, list[scipy.sparse.csr_array]] = {name: [] for name in saes}
        self.n_pairs = dict.fromkeys(saes, 0)

    def add(self, name: str, code: Code) -> None:
        """Keep a code, unless this SAE's pairs are too many by now."""
        if self.n_pairs[name] >= PAIRS:
            return
        parts = (code.values.float(), code.features, code.starts)
        values, features, starts = (part.cpu().numpy() for part in parts)
        matrix = scipy.sparse.csr_array(
            (values, features.astype(np.int32), starts), (code.n_tokens, code.n_features)
        )
        matrix.eliminate_zeros()
        self.pieces[name].append(matrix)
        self.n_pairs[name] += matrix.nnz

    def matrices(self) -> dict[str, scipy.sparse.csr_array]:
        """[N, F] by SAE, of the pieces that every SAE has."""
        n_pieces = min(len(pieces) for pieces in self.pieces.values())
        return {
            name: scipy.sparse.csr_array(scipy.sparse.vstack(pieces[:n_pieces], format="csr"))
            for name, pieces in self.pieces.items()
        }
