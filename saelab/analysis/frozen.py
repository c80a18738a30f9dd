"""The model made affine: attention patterns, norm denominators and MLP outputs held at the values
of one run.

Between any activations that are given and any that are read nothing non-linear is left, so
contributions add up exactly. Source: Elhage et al. 2021 (frozen attention patterns); Ameisen et al.
2025 (local replacement model). Shapes: C contexts, N contexts of a batch, R functionals, T
positions, D width.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.models import hook_points, resolve_hook, running

EMBEDDING = "blocks.0.hook_in"  # token and position embedding, added up
LOGITS = "unembed.hook_out"
HELD = re.compile(r"(.*\.hook_pattern|(.*\.ln\d|ln_final)\.hook_scale|blocks\.\d+\.mlp\.hook_out)")


class Frozen(NamedTuple):
    """tokens [C, T] of the run; held: hook -> its value in that run, which `run` puts back in
    place."""

    tokens: Tensor
    held: dict[str, Tensor]


@torch.no_grad()
def freeze(model: Any, tokens_CT: Tensor) -> Frozen:
    """Run the model and keep what makes it non-linear.

    Raises UsageError while split q/k/v inputs are on, because edits of the norm do not reach them.
    """
    if getattr(model.cfg, "use_split_qkv_input", False):
        raise UsageError(
            "frozen norms do not act while use_split_qkv_input is on: call "
            "set_use_split_qkv_input(False) first"
        )
    names = [name for name in dict.fromkeys(hook_points(model).values()) if HELD.fullmatch(name)]
    return Frozen(tokens_CT, run(model, Frozen(tokens_CT, {}), {}, names))


def run(
    model: Any,
    frozen: Frozen,
    replace: Mapping[str, Tensor],
    read: Sequence[str],
    extra: Sequence[tuple[str, running.Edit]] = (),
) -> dict[str, Tensor]:
    """What arrives at the hooks `read`, with the activations at the hooks of `replace` given, [N,
    T, D] (heads flattened).

    A hook in both is read before it is replaced. With one context frozen N is free, otherwise N =
    C. Gradients flow from what is read to what is given, along paths that meet no other given hook.
    extra: further edits, which act first. What is read comes in the order in which it fired. Raises
    UsageError for a hook that the model does not have or that does not fire.
    """
    given = {resolve_hook(model, name): value for name, value in replace.items()}
    wanted = {resolve_hook(model, name): name for name in read}
    rows = len(next(iter(given.values()))) if given else len(frozen.tokens)
    seen: dict[str, Tensor] = {}

    def act(acts: Tensor, name: str) -> Tensor | None:
        if name in wanted:
            seen[wanted[name]] = acts if HELD.fullmatch(name) else acts.flatten(2)
        if name in given:
            return given[name].reshape(acts.shape)
        return frozen.held[name].expand(acts.shape) if name in frozen.held else None

    names = dict.fromkeys([*given, *wanted, *frozen.held])
    edits = [*extra, *((name, partial(act, name=name)) for name in names)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A forward hook edited hook_scale")
        running.run(model, frozen.tokens.expand(rows, -1), edits)
    if silent := [name for name in wanted if wanted[name] not in seen]:
        raise UsageError(f"hooks that never fire in this model: {', '.join(silent)}")
    return seen


class Rows(NamedTuple):
    """Linear functionals of given activations. gradients: hook -> [R, T, D]; constants [R]: their
    value where all given are 0."""

    gradients: dict[str, Tensor]
    constants: Tensor


def rows(
    model: Any,
    frozen: Frozen,
    given: Mapping[str, Tensor],
    read: str,
    positions_R: Tensor,
    W_RD: Tensor,
) -> Rows:
    """The functionals W_r . (activation at `read`, position_r) of one frozen context, as functions
    of the given ones [T, D].

    A functional's value is its constant plus the sum of gradient x given over hooks and positions,
    up to rounding.
    """
    zeros = {name: torch.zeros_like(value_TD)[None] for name, value_TD in given.items()}
    with torch.no_grad():
        constants_R = (run(model, frozen, zeros, [read])[read][0, positions_R] * W_RD).sum(1)
    leaves = {
        name: value_TD.repeat(len(W_RD), 1, 1).requires_grad_() for name, value_TD in given.items()
    }
    with torch.enable_grad():
        arrived_RD = run(model, frozen, leaves, [read])[read][torch.arange(len(W_RD)), positions_R]
        total = (arrived_RD * W_RD).sum()
    if not total.requires_grad:
        return Rows({name: torch.zeros_like(leaf) for name, leaf in leaves.items()}, constants_R)
    gradients = torch.autograd.grad(
        total, list(leaves.values()), allow_unused=True, materialize_grads=True
    )
    return Rows(dict(zip(leaves, gradients, strict=True)), constants_R)
