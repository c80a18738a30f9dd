"""Features edited while the model runs: x + (z' - z) W_dec, the SAE's error as it is.

A transcoder is edited at its output. Where an SAE normalises each token, the edit is undone with
the token's own scale. Source: Templeton et al. 2024, "Scaling Monosemanticity"; Marks et al. 2024.

Shapes: C contexts, T positions, D width of what is read, E edits, O width of what is explained.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.models import resolve_hook, running
from saelab.sae import SAE
from saelab.token_norm import normalised

Mode = Literal["add", "clamp", "ablate", "scale"]
MODES = ("add", "clamp", "ablate", "scale")

Push = Callable[[Tensor], Tensor]
"""From what is read [C, T, D] to what is added to what is explained [C, T, O]."""


class Edit(NamedTuple):
    """What happens to a feature at every position but the first.

    add: its activation grows by `value`, which adds value times its direction; clamp: it becomes
    `value`; ablate: it becomes 0; scale: it becomes `value` times itself.
    """

    feature: int
    mode: Mode
    value: float = 0.0


def check(sae: SAE, edits: Sequence[Edit]) -> None:
    """Raise UsageError for no edits, an unknown mode, a feature that the SAE has not, and a value
    that is no finite number."""
    if not edits:
        raise UsageError(f"no edit to steer with: name a feature and one of {', '.join(MODES)}")
    for edit in edits:
        if edit.mode not in MODES:
            raise UsageError(
                f"no way to edit a feature called {edit.mode!r}; there are {', '.join(MODES)}"
            )
        if not 0 <= edit.feature < sae.n_features:
            raise UsageError(
                f"no feature {edit.feature}: this SAE has {sae.n_features}, counted from 0"
            )
        if not abs(edit.value) < float("inf"):
            raise UsageError(f"{edit.mode} of feature {edit.feature} to {edit.value}: no number")


@torch.no_grad()
def amounts(sae: SAE, x_CTD: Tensor, edits: Sequence[Edit]) -> Tensor:
    """[C, T, E]: by how much each edit changes what its decoder row is multiplied by; 0 at position
    0."""
    flat_BD = x_CTD.flatten(0, 1).to(sae.W_enc)
    code = sae.encode(flat_BD)
    now_BE = torch.stack([_values(code, edit.feature) for edit in edits], 1)
    kept_E = torch.tensor([_kept(edit) for edit in edits]).to(now_BE)
    added_E = torch.tensor([_added(edit) for edit in edits]).to(now_BE)
    changed_BE = (kept_E - 1) * now_BE + added_E
    changed_BE = changed_BE * normalised(flat_BD, sae.token_norm).size
    changed_CTE = changed_BE.view(*x_CTD.shape[:2], -1)
    changed_CTE[:, 0] = 0
    return changed_CTE


def _values(code: Any, feature: int) -> Tensor:
    """[B]: a feature's activation on each token."""
    its_N = torch.where(code.features == feature, code.values, 0)
    return its_N.new_zeros(code.n_tokens).index_add_(0, code.tokens, its_N)


def _kept(edit: Edit) -> float:
    """How much is left of the activation that is there."""
    if edit.mode == "scale":
        return edit.value
    return float(edit.mode == "add")


def _added(edit: Edit) -> float:
    """What is put there, whatever the activation was."""
    return edit.value if edit.mode in ("add", "clamp") else 0.0


def shift(sae: SAE, x_CTD: Tensor, edits: Sequence[Edit]) -> Tensor:
    """[C, T, O]: what the edits add to the activation that the SAE explains; 0 at position 0. The
    SAE's error stays."""
    return amounts(sae, x_CTD, edits) @ rows(sae, edits)


def rows(sae: SAE, edits: Sequence[Edit]) -> Tensor:
    """[E, O]: the decoder rows of the edited features."""
    features_E = torch.tensor([edit.feature for edit in edits], device=sae.W_dec.device)
    return sae.W_dec.detach()[features_E]


def push(
    sae: SAE,
    edits: Sequence[Edit],
    others_EO: Tensor | None = None,
    positions: Sequence[int] | None = None,
) -> Push:
    """What the edits add, as a function of what is read.

    others_EO: directions in the place of the features' own, the length of the whole edit kept at
    every position: the control. positions: those edited (default: every one but the first). Raises
    UsageError as `check` does.
    """
    check(sae, edits)
    own_EO = rows(sae, edits)

    def moved(x_CTD: Tensor) -> Tensor:
        amounts_CTE = amounts(sae, x_CTD, edits)
        if positions is not None:
            amounts_CTE = amounts_CTE * _at(positions, amounts_CTE)
        moved_CTO = amounts_CTE @ own_EO
        if others_EO is None:
            return moved_CTO
        lengths_CT1 = moved_CTO.norm(dim=2, keepdim=True)
        other_CTO = amounts_CTE @ others_EO.to(own_EO)
        return lengths_CT1 * torch.nn.functional.normalize(other_CTO, dim=2)

    return moved


def _at(positions: Sequence[int], amounts_CTE: Tensor) -> Tensor:
    """[T, 1]: 1 at those positions that there are."""
    mask_T1 = amounts_CTE.new_zeros(amounts_CTE.shape[1], 1)
    mask_T1[[at for at in positions if 0 <= at < len(mask_T1)]] = 1
    return mask_T1


def hooks(model: Any, sae: SAE, edits: Sequence[Edit]) -> list[tuple[str, running.Edit]]:
    """What steers whole contexts, as edits of `running.logits` and as hooks of a bridge's
    `run_with_hooks(..., fwd_hooks=...)` alike.

    Raises UsageError for an unknown mode or feature, and for an SAE that does not fit the model.
    """
    return pushing(model, sae, push(sae, edits))


def pushing(model: Any, sae: SAE, push: Push) -> list[tuple[str, running.Edit]]:
    """The same of any push. Raises UsageError for an SAE that does not fit the model."""
    seen: dict[str, Tensor] = {}
    names = tuple(resolve_hook(model, name) for name in sae.origin.hooks)
    widths = (sae.d_model, len(sae.b_dec))

    def check_width(acts: Tensor, which: int) -> None:
        there = acts.flatten(2).shape[2]
        if there != widths[which]:
            raise UsageError(
                f"the SAE for {names[which]} is of width {widths[which]}, this model has {there} "
                "there: it belongs to another model or hook"
            )

    def remember(acts: Tensor, hook: Any = None) -> None:
        check_width(acts, 0)
        seen["moved"] = push(acts.flatten(2))

    def write(acts: Tensor, hook: Any = None) -> Tensor:
        check_width(acts, 1)
        return acts + seen["moved"].view(acts.shape).to(acts)

    return [(names[0], remember), (names[1], write)]
