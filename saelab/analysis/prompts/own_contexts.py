"""What a feature does to the next-token loss in the contexts where it fires most: it is taken out
of the activation, and so is a random direction as long, in one batch each.

Shapes: C contexts of T positions, D width of what is read, E of what is explained.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from saelab.errors import UsageError
from saelab.models import heads, resolve_hook, running
from saelab.models.losses import next_token_loss
from saelab.sae import SAE
from saelab.statistics import Estimate, over_documents, weights
from saelab.token_norm import normalised


class InContexts(NamedTuple):
    """What it does there."""

    change: Tensor
    """[C, T - 1]: what the loss of token t + 1 rises by without the feature, in nats; 0 beyond a
    context's end"""
    random: Tensor
    """[C, T - 1]: the same without a random direction of the same length on the same tokens"""
    value: Tensor
    """[C, T]: the feature's, 0 at position 0"""
    firing: Estimate
    """mean change of the predictions made where it fires; interval over contexts, null: random"""
    later: Estimate
    """mean, over contexts, of the summed change of all predictions; likewise"""


@torch.no_grad()
def without(
    model: Any, sae: SAE, feature: int, contexts: Sequence[Sequence[int]], seed: int = 0
) -> InContexts:
    """Run the contexts (token ids, position 0 included) as they are, and without what the feature
    writes, all else and the SAE's error as they are.

    Raises UsageError for a model that predicts no tokens, and for no contexts.

    >>> without(model, sae, 7, [[0, 17, 4, 9]]).firing
    """
    if why := heads.why_no_losses(model):
        raise UsageError(why)
    if not contexts:
        raise UsageError(f"feature {feature} has no contexts to be taken out of")
    tokens_CT = pad_sequence([torch.tensor(ids) for ids in contexts], batch_first=True)
    length_C = torch.tensor([len(ids) for ids in contexts])
    inside_CT = torch.arange(tokens_CT.shape[1]) < length_C[:, None]
    reads, writes = (resolve_hook(model, name) for name in sae.origin.hooks)
    clean = running.run(model, tokens_CT, read=[reads])
    written_CT = _written(sae, clean.acts[reads], feature) * inside_CT
    loss_CT = next_token_loss(clean.logits, tokens_CT)
    row_E = sae.W_dec.detach()[feature]
    generator = torch.Generator().manual_seed(seed)
    random_E = normalize(torch.randn(len(row_E), generator=generator), dim=0) * row_E.norm().cpu()
    changes = []
    for direction_E in (row_E, random_E.to(row_E)):
        logits_CTV = running.logits(model, tokens_CT, {writes: _less(written_CT, direction_E)})
        changes.append((next_token_loss(logits_CTV, tokens_CT) - loss_CT) * inside_CT[:, 1:])
    change_CT, random_CT = changes
    fired_CT = (written_CT[:, :-1] != 0) & inside_CT[:, 1:]
    firing = _mean((change_CT * fired_CT).sum(1), (random_CT * fired_CT).sum(1), fired_CT.sum(1))
    later = _mean(change_CT.sum(1), random_CT.sum(1), torch.ones(len(tokens_CT)))
    return InContexts(change_CT, random_CT, written_CT, firing, later)


def _written(sae: SAE, acts: Tensor, feature: int) -> Tensor:
    """[C, T]: what the feature's decoder row is multiplied by, its value times the token's own
    scale where the SAE normalises tokens; 0 at position 0, where no SAE is trained."""
    x_ND = acts.flatten(2).flatten(0, 1).to(sae.W_enc)
    code = sae.reconstruct(x_ND)[1]
    size = normalised(x_ND, sae.token_norm).size
    mine = code.features == feature
    written_N = x_ND.new_zeros(len(x_ND))
    written_N[code.tokens[mine]] = code.values[mine]
    written_N *= size[:, 0] if isinstance(size, Tensor) else size
    written_CT = written_N.view(acts.shape[:2]).clone()
    written_CT[:, 0] = 0
    return written_CT


def _less(written_CT: Tensor, direction_E: Tensor) -> Callable[[Tensor], Tensor]:
    """The edit that takes a direction out."""

    def changed(acts: Tensor) -> Tensor:
        gone_CTE = written_CT[..., None] * direction_E
        return (acts.flatten(2) - gone_CTE.to(acts)).view(acts.shape)

    return changed


def _mean(change_C: Tensor, random_C: Tensor, n_C: Tensor) -> Estimate:
    """Summed changes over how many there are, with the same of the random direction."""
    sums_C3 = torch.stack([change_C.double(), random_C.double(), n_C.double()], 1).numpy()
    _, random, n = sums_C3.sum(0)
    by_context = weights(len(sums_C3))
    return over_documents(sums_C3, _ratio, by_context, null=float(random / max(n, 1.0)))


def _ratio(sums_X3: np.ndarray) -> np.ndarray:
    return sums_X3[..., 0] / np.maximum(sums_X3[..., 2], 1.0)
