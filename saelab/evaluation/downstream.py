"""The model's loss with an SAE's reconstruction spliced in at a hook point.

Shapes: C contexts, T positions, D width.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from saelab.models.heads import head
from saelab.models.losses import Compared, compare
from saelab.models.splicing import Splice

__all__ = ["Compared", "Splice", "predicting", "spliced"]


def predicting(counted_CT: Tensor) -> Tensor:
    """[C, T] bool: positions that count and whose next token does too; the predictions made there
    make up a loss."""
    next_CT = counted_CT.roll(-1, 1)
    next_CT[:, -1] = False
    return counted_CT & next_CT


def spliced(
    splice: Splice,
    replacements: Mapping[str, Tensor],
    counted_CT: Tensor,
    at: str | None = None,
) -> dict[str, Compared]:
    """Loss and KL, in nats, of the predictions made where `predicting` says: of the model as it is
    (`clean`), and with each activation [C, T, D] in place at the positions that count; the others
    pass untouched. at: the one of several hooks that is replaced (default: all are)."""
    before_CTD = splice.acts[splice.hook]
    counted_CT = counted_CT.to(before_CTD.device)
    predicting_CT = predicting(counted_CT)
    # Endings that are whole logits are compared one by one: all together they would not fit.
    groups = [[name] for name in replacements] if head(splice.model) is None else [[*replacements]]
    compared: dict[str, Compared] = {}
    for group in groups:
        endings = {"clean": splice.clean}
        for name in group:
            replaced_CTD = replacements[name].to(before_CTD)
            replaced_CTD = torch.where(counted_CT[..., None], replaced_CTD, before_CTD)
            endings[name] = splice.ending(replaced_CTD, at)
        compared |= compare(splice.model, endings, splice.tokens_CT, predicting_CT)
    return compared
