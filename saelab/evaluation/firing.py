"""Which features fire: how often in each document, and which never do.

Shapes: G documents, F features, B tokens, D width, U features that have not fired.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from saelab.activations import Cache
from saelab.code import Code
from saelab.coder import Coder
from saelab.sae import SAE
from saelab.sparsify import Choice, Own, Threshold

DEAD_TOKENS = 500_000  # training tokens on which a feature that never fires counts as dead
SIZE = 4096  # tokens coded at a time for it
ROUNDING = 1e-5  # of an activation's length: how far plain products may be from the kernels' values


class Firings:
    """Running counts, over codes, of the tokens of each document on which each feature fires."""

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features
        self.parts: list[tuple[np.ndarray, scipy.sparse.csr_array]] = []

    def add(self, owners_B: Tensor, code: Code) -> None:
        """Count the pairs of a code that fired (value != 0), tokens [B] of these documents."""
        documents, group_B = owners_B.cpu().unique(return_inverse=True)
        code = code.to("cpu")
        on = code.values != 0
        rows, columns = group_B[code.tokens[on]].numpy(), code.features[on].numpy()
        shape = (len(documents), self.n_features)
        ones = np.ones(len(rows), dtype=np.int32)
        counts = scipy.sparse.coo_array((ones, (rows, columns)), shape).tocsr()
        self.parts.append((documents.numpy(), counts))

    def table(self, documents: list[int]) -> scipy.sparse.csr_array:
        """[G, F]: tokens of each of these documents (ascending) on which each feature fired."""
        owners = np.concatenate([part for part, _ in self.parts])
        counts = scipy.sparse.vstack([part for _, part in self.parts]).tocsr()
        place = (np.searchsorted(documents, owners), np.arange(len(owners)))
        ones = np.ones(len(owners), dtype=np.int32)
        return scipy.sparse.csr_array((ones, place), (len(documents), len(owners))) @ counts


@torch.no_grad()
def silent(sae: Coder, pieces: Iterable[Tensor]) -> Tensor:
    """[F] bool: features of an SAE in inference form that fire on no token of the pieces [B, D].

    Only tokens on which a feature that has not fired yet may do so are coded.
    """
    fired_F = sae.b_dec.new_zeros(sae.n_features, dtype=torch.int64)
    for piece_BD in pieces:
        if bool(fired_F.all()):
            break
        x_BD = piece_BD.to(sae.b_dec)
        if isinstance(sae, SAE):
            x_BD = x_BD[_may_fire(sae, x_BD, fired_F)]
        code = sae.encode(x_BD)
        on = code.values != 0
        fired_F += torch.bincount(code.features[on], minlength=sae.n_features)
    return fired_F == 0


def training_tokens(cache: Cache, hook: str, seed: int = 0) -> Iterator[Tensor]:
    """Activations [B, D] of DEAD_TOKENS shuffled training tokens, or of all where there are no
    more."""
    if cache.n_tokens("train") <= DEAD_TOKENS:
        for chunk in cache.counted(hook, "train"):
            yield from chunk.x.split(SIZE)
    else:
        yield from islice(cache.batches(hook, SIZE, seed, "train"), -(-DEAD_TOKENS // SIZE))


def _may_fire(sae: SAE, x_BD: Tensor, fired_F: Tensor) -> Tensor:
    """[B] bool: False only where no feature that has not fired can be among the token's pairs."""
    form = sae.sparsify
    if (
        not bool(fired_F.any())
        or sae.token_norm
        or isinstance(form, Own)
        or (isinstance(form, Choice) and form.over != "token")
    ):
        return x_BD.new_ones(len(x_BD), dtype=torch.bool)
    rest_BU, slack_B = _scores(sae, x_BD, fired_F == 0), ROUNDING * x_BD.norm(dim=1)
    if isinstance(form, Threshold):
        levels_U = form.level if sae.levels is None else sae.levels[fired_F == 0]
        return (rest_BU - levels_U).amax(1) > -slack_B
    # Where k features of any choice score higher, nothing else is picked. Those that fire most
    # often are the ones that most often do.
    best_B = rest_BU.amax(1) + slack_B
    n_known = min(sae.n_features, 8 * form.k)
    known_BS = _scores(sae, x_BD, fired_F.topk(n_known).indices)
    return (best_B > 0) & ((known_BS > best_B[:, None]).sum(1) < form.k)


def _scores(sae: SAE, x_BD: Tensor, which: Tensor) -> Tensor:
    """Scores [B, U] of some features, as plain products."""
    centred_BD = x_BD if sae.transcoder else x_BD - sae.b_dec
    pre_BU = centred_BD @ sae.W_enc[which].T + sae.b_enc[which]
    return pre_BU.abs() if sae.sparsify.signed else pre_BU
