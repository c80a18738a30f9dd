"""What a dictionary makes of a prompt: which features fire on which token, how strongly, how
strongly for such a feature, and what each adds to the loss, by estimate.

The estimated effect of a feature on a token is its value x (W_dec_f . dL/dx), L being the prompt's
summed next-token cross-entropy in nats and x the activation that the dictionary explains: what the
loss would fall by without it (negative: rise), all others as they are. With the gradient at x one
backward pass gives all of them, to first order: attribution patching (Nanda 2023; Syed et al.
2023), as Marks et al. 2024 use it for features. `integrated` takes the gradient along the way to
the feature's absence.

Shapes: T positions, D width of what is read, E of what is explained, F features, N pairs.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.analysis.prompts.text import Prompt
from saelab.code import Code
from saelab.errors import UsageError
from saelab.kernels import sddmm, spmm
from saelab.models import heads, resolve_hook, running
from saelab.models.losses import next_token_loss
from saelab.sae import SAE
from saelab.token_norm import normalised

By = Literal["value", "usual", "effect"]
ORDERS = ("value", "usual", "effect")
Estimated = Literal["integrated", "gradient"]
ESTIMATES: tuple[Estimated, ...] = ("integrated", "gradient")  # of effects; the default first


class Read(NamedTuple):
    """A prompt's activations as a sum: explained = written W_dec + base + error, which is exact. At
    position 0 all of it is error: no SAE is trained there."""

    prompt: Prompt
    sae: SAE
    x: Tensor
    """[T, D]: what the dictionary reads"""
    explained: Tensor
    """[T, E]: the activation that it explains (an SAE: the same)"""
    code: Code
    """of T tokens, without pairs of value 0"""
    written: Tensor
    """[N]: what each pair's decoder row is multiplied by: its value, times the token's own scale
    where the SAE normalises tokens"""
    base: Tensor
    """[T, E]: decoder bias; skip and a token's mean, where there are any"""
    error: Tensor
    """[T, E]"""
    loss: Tensor | None
    """[T - 1]: cross-entropy in nats of token t + 1; None of a model that predicts none"""
    gradient: Tensor | None
    """[T, E]: of the summed loss by the explained activation"""


class Table(NamedTuple):
    """The features of a prompt, one row for each pair of a token and a feature that fires there; on
    the CPU."""

    position: Tensor
    """[N] int64"""
    feature: Tensor
    """[N] int64"""
    value: Tensor
    """[N]"""
    usual: Tensor | None
    """[N]: |value| over the feature's usual one, the mean of |value| where it fires; NaN where that
    is not known"""
    effect: Tensor | None
    """[N]: estimated effect on the loss in nats, value x (W_dec . dL/dx); above 0: the loss would
    be lower without. By one of ESTIMATES"""


def read(model: Any, sae: SAE, prompt: Prompt, gradient: bool = True) -> Read:
    """Run the model over a prompt and take its activations apart.

    gradient: with one backward pass, where the model predicts tokens. Raises UsageError for an SAE
    that does not fit the model.
    """
    return read_tokens(model, sae, prompt, gradient and not heads.why_no_losses(model))


def read_tokens(model: Any, sae: SAE, prompt: Prompt, gradient: bool) -> Read:
    """The same for a model of which it is known whether it has losses."""
    names = tuple(resolve_hook(model, name) for name in sae.origin.hooks)
    tokens_1T, hooks = prompt.tokens[None], list(dict.fromkeys(names))
    slope_TE = loss_T = None
    if gradient:
        acts = running.gradients(model, tokens_1T, hooks)
        slope_TE = acts[f"{names[1]}.grad"][0].flatten(1)
        with torch.no_grad():
            loss_T = next_token_loss(running.logits(model, tokens_1T), tokens_1T)[0]
    else:
        acts = running.read(model, tokens_1T, hooks)
    x_TD, explained_TE = (acts[name][0].flatten(1) for name in names)
    _check_width(sae, x_TD, explained_TE)
    return split(prompt, sae, x_TD, explained_TE)._replace(gradient=slope_TE, loss=loss_T)


def _check_width(sae: SAE, x_TD: Tensor, explained_TE: Tensor) -> None:
    wants = (sae.d_model, len(sae.b_dec))
    has = (x_TD.shape[1], explained_TE.shape[1])
    for name, wanted, there in zip(sae.origin.hooks, wants, has, strict=True):
        if wanted != there:
            raise UsageError(
                f"the SAE for {name} is of width {wanted}, this model has {there} there: it "
                "belongs to another model or hook"
            )


@torch.no_grad()
def split(prompt: Prompt, sae: SAE, x_TD: Tensor, explained_TE: Tensor) -> Read:
    """The parts of activations; without losses."""
    x_TD = x_TD.to(sae.W_enc)
    explained_TE = explained_TE.to(sae.W_enc)
    x_hat_TE, code = sae.reconstruct(x_TD)
    code = code.where((code.values != 0) & (code.tokens != 0))
    size = normalised(x_TD, sae.token_norm).size
    written_N = code.values * (size[code.tokens, 0] if isinstance(size, Tensor) else size)
    decoded_TE = spmm(code.with_values(written_N), sae.W_dec.detach())
    base_TE = x_hat_TE - decoded_TE
    base_TE[0] = 0
    error_TE = explained_TE - decoded_TE - base_TE
    return Read(prompt, sae, x_TD, explained_TE, code, written_N, base_TE, error_TE, None, None)


def along(read: Read, direction_TE: Tensor) -> Tensor:
    """[N]: what each pair adds to sum_t direction_t . explained_t: written x (W_dec . that)."""
    slope_N = sddmm(direction_TE.to(read.written), read.sae.W_dec.detach(), read.code)
    return read.written * slope_N


def table(
    read: Read, usual_F: Tensor | np.ndarray | None = None, effect_N: Tensor | None = None
) -> Table:
    """The rows of a prompt, by position, then feature.

    usual_F: each feature's mean |value| where it fires, as the feature index holds it
    (`FeatureIndex.means`) or `usual.of_cache` counts it; 0 or NaN where it never did.

    >>> rows = table(read(model, sae, prompt(model, "import numpy as np")), index.means())
    >>> rows.feature[strongest(rows, "effect", 5)]
    """
    features, values = read.code.features.cpu(), read.code.values.cpu()
    usual_N = None
    if usual_F is not None:
        # What an index holds is mapped from its file, which nobody may write.
        held_F = usual_F if isinstance(usual_F, Tensor) else torch.from_numpy(np.array(usual_F))
        mean_N = held_F.float()[features]
        usual_N = torch.where(mean_N > 0, values.abs() / mean_N, torch.nan)
    if effect_N is None and read.gradient is not None:
        effect_N = along(read, read.gradient)
    effect_N = None if effect_N is None else effect_N.cpu()
    return Table(read.code.tokens.cpu(), features, values, usual_N, effect_N)


def column(rows: Table, by: By) -> Tensor:
    """[N]: the numbers that an order goes by. Raises UsageError for an order that there is not, and
    for one whose numbers are not known."""
    if by not in ORDERS:
        raise UsageError(f"no order {by!r}; there are {', '.join(ORDERS)}")
    numbers_N = getattr(rows, by)
    if numbers_N is None:
        why = {
            "usual": "how strongly each feature fires as a rule is not known: `saelab index RUN` "
            "counts it",
            "effect": "this model predicts no tokens, so there is no loss to have an effect on",
        }
        raise UsageError(f"by={by}: {why[by]}")
    return numbers_N


def strongest(rows: Table, by: By = "value", n: int | None = None) -> Tensor:
    """Row numbers by falling size of what an order goes by, ties to the first; n at most.

    >>> strongest(rows, "usual", 10)
    """
    sizes_N = column(rows, by).abs().nan_to_num(nan=-1.0)
    return sizes_N.argsort(descending=True, stable=True)[:n]


def on_token(rows: Table, position: int, by: By = "value", n: int | None = None) -> Tensor:
    """The same of the rows of one token."""
    order_N = strongest(rows, by)
    return order_N[rows.position[order_N] == position][:n]


def traces(rows: Table, features: Sequence[int], n_positions: int) -> Tensor:
    """[len(features), T]: the value of each of those features at every position, 0 where it does
    not fire.

    >>> traces(rows, [3, 17], len(prompt.tokens)).shape
    """
    values_FT = rows.value.new_zeros(len(features), n_positions)
    for number, feature in enumerate(features):
        its_N = rows.feature == feature
        values_FT[number, rows.position[its_N]] = rows.value[its_N]
    return values_FT
