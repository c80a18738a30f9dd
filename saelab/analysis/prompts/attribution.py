"""Where a next token's logit comes from: features, the SAE's errors, biases and what passes by.

A pair's contribution is value x (W_dec . d logit/dx). With the gradient of the whole model that is
first order; with the model frozen (attention patterns, norms and MLPs held at this run's values)
the logit is an affine function of x, and contributions are exact. Either way logit = features +
bias + error + rest. Sources: Marks et al. 2024; Ameisen et al. 2025.

Shapes: T positions, D width of what is read, E of what is explained, N pairs, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.analysis.prompts.features import Read, along
from saelab.errors import UsageError
from saelab.models import resolve_hook, running


class Attribution(NamedTuple):
    """A logit, or a difference of two, taken apart; logit = sum(features) + sum(bias) + sum(error)
    + rest."""

    token: int
    """whose logit it is"""
    against: int | None
    """whose logit is subtracted; None: none"""
    position: int
    """after which it is predicted"""
    logit: float
    """what the model gives"""
    features: Tensor
    """[N]: contribution of each pair of the code, in its order"""
    bias: Tensor
    """[T]: of decoder bias (and skip) at each position"""
    error: Tensor
    """[T]: of what the dictionary misses; all of position 0"""
    rest: float
    """what does not go through this activation; with gradients also what is not linear in it"""
    exact: bool
    """whether the model was frozen, so that `rest` was measured by itself"""

    @property
    def total(self) -> float:
        """The parts added up."""
        sums = (self.features, self.bias, self.error)
        return sum(float(part.double().sum()) for part in sums) + self.rest


def attribute(
    model: Any,
    read: Read,
    token: int,
    against: int | None = None,
    position: int = -1,
    exact: bool = False,
) -> Attribution:
    """Contributions to the logit of `token` (less that of `against`) after a position of a prompt.

    exact: freeze the model, which needs a bridge (seconds, once). Raises UsageError for tokens and
    positions that there are not, and a model without a head.

    >>> parts = attribute(model, activations, token=next_token(model, "def f(", "self"))
    >>> parts.features.argmax(), parts.rest
    """
    position = _checked(model, read, token, against, position)
    direction_V = torch.zeros(model.cfg.d_vocab)
    direction_V[token] = 1
    if against is not None:
        direction_V[against] -= 1
    parts = _frozen if exact else _first_order
    slope_TE, logit, rest = parts(model, read, direction_V, position)
    bias_T, error_T = ((part * slope_TE).sum(1).cpu() for part in (read.base, read.error))
    pairs_N = along(read, slope_TE).cpu()
    if rest is None:
        through = (read.explained.double() * slope_TE.double()).sum()
        rest = logit - float(through)
    return Attribution(token, against, position, logit, pairs_N, bias_T, error_T, rest, exact)


def _checked(model: Any, read: Read, token: int, against: int | None, position: int) -> int:
    """The position counted from the front."""
    length, n_vocabulary = len(read.prompt.tokens), model.cfg.d_vocab
    if not -length <= position < length:
        raise UsageError(f"no position {position}: the prompt has positions 0 to {length - 1}")
    for number in (token, against):
        if number is not None and not 0 <= number < n_vocabulary:
            raise UsageError(f"no token {number}: the model has tokens 0 to {n_vocabulary - 1:,}")
    return position % length


def _first_order(
    model: Any, read: Read, direction_V: Tensor, position: int
) -> tuple[Tensor, float, None]:
    """d logit/dx [T, E] of the whole model, and the logit."""
    heads_apart: dict[str, Tensor] = {}
    name = resolve_hook(model, read.sae.origin.target)

    def leaf(acts: Tensor) -> Tensor:
        heads_apart[name] = acts.detach().clone().requires_grad_()
        return heads_apart[name]

    with torch.enable_grad():
        logits_V = running.logits(model, read.prompt.tokens[None], {name: leaf})[0, position]
        logit = (logits_V.float() * direction_V.to(logits_V.device)).sum()
        if name not in heads_apart:
            raise UsageError(f"hooks that never fire in this model: {name}")
        (slope,) = torch.autograd.grad(logit, [heads_apart[name]], allow_unused=True)
    if slope is None:
        raise UsageError(f"{name} does not reach the logits: they do not come from there")
    return slope[0].flatten(1).to(read.written), float(logit.detach()), None


def _frozen(
    model: Any, read: Read, direction_V: Tensor, position: int
) -> tuple[Tensor, float, float]:
    """d logit/dx [T, E] of the frozen model, the logit, and its value where x is 0."""
    tokens_1T = read.prompt.tokens[None]
    name = resolve_hook(model, read.sae.origin.target)
    held = frozen.freeze(model, tokens_1T)
    with torch.no_grad():
        logits_V = running.logits(model, tokens_1T)[0, position].float().cpu()
    at_R, rows_RV = torch.tensor([position]), direction_V[None].to(read.written.device)
    given = {name: read.explained}
    rows = frozen.reading(model, held, given, frozen.LOGITS).rows(at_R, rows_RV)
    if name not in rows.gradients:
        raise UsageError(f"{name} does not reach the logits: they do not come from there")
    slope_TE = rows.gradients[name][0].to(read.written)
    return slope_TE, float((logits_V * direction_V).sum()), float(rows.constants[0])
