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


class Passing(NamedTuple):
    """A linear way past what is given at a hook, such as a transcoder's skip."""

    read: str
    """the hook it comes from"""
    W: Tensor
    """[E, D]"""

    def of(self, x_CTD: Tensor) -> Tensor:
        """What passes, [C, T, E]; nothing at position 0, which no SAE explains."""
        passed_CTE = x_CTD @ self.W.T
        return torch.cat([torch.zeros_like(passed_CTE[:, :1]), passed_CTE[:, 1:]], 1)


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
    passing: Mapping[str, Passing] | None = None,
) -> dict[str, Tensor]:
    """What arrives at the hooks `read`, with the activations at the hooks of `replace` given, [N,
    T, D] (heads flattened).

    A hook in both is read before it is replaced. With one context frozen N is free, otherwise N =
    C. Gradients flow from what is read to what is given, along paths that meet no other given hook.
    extra: further edits, which act first. passing: what is added to the activation given at a hook,
    from an earlier one. What is read comes in the order in which it fired. Raises UsageError for a
    hook that the model does not have or that does not fire.
    """
    given = {resolve_hook(model, name): value for name, value in replace.items()}
    wanted = {resolve_hook(model, name): name for name in read}
    ways = {name: way for name, way in (passing or {}).items() if name in given}
    sources = {way.read for way in ways.values()}
    rows = len(next(iter(given.values()))) if given else len(frozen.tokens)
    seen: dict[str, Tensor] = {}
    passed: dict[str, Tensor] = {}

    def act(acts: Tensor, name: str) -> Tensor | None:
        if name in wanted:
            seen[wanted[name]] = acts if HELD.fullmatch(name) else acts.flatten(2)
        if name in sources:
            passed[name] = acts.flatten(2)
        if name in ways:
            way = ways[name]
            return (given[name] + way.of(passed[way.read])).reshape(acts.shape)
        if name in given:
            return given[name].reshape(acts.shape)
        return frozen.held[name].expand(acts.shape) if name in frozen.held else None

    names = dict.fromkeys([*given, *wanted, *sources, *frozen.held])
    edits = [*extra, *((name, partial(act, name=name)) for name in names)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A forward hook edited hook_scale")
        running.run(model, frozen.tokens.expand(rows, -1), edits)
    if silent := [name for name in wanted if wanted[name] not in seen]:
        raise UsageError(f"hooks that never fire in this model: {', '.join(silent)}")
    return seen


class Rows(NamedTuple):
    """Linear functionals of given activations."""

    gradients: dict[str, Tensor]
    """[R, T, D] by hook; of a hook that reaches none of them there is none"""
    constants: Tensor
    """[R] their value where all given are 0"""


class Reading(NamedTuple):
    """What one frozen context brings to a hook, as a function of given activations."""

    given: dict[str, Tensor]
    """[1, T, D] by hook: what gradients are taken of"""
    arrived: Tensor
    """[T, D] at the hook"""
    rest: Tensor
    """[T, D] what arrives where all given are 0"""

    def rows(self, positions_R: Tensor, W_RD: Tensor) -> Rows:
        """The functionals W_r . arrived[position_r].

        A functional's value is its constant plus the sum of gradient x given over hooks and
        positions, up to rounding.
        """
        at_R = torch.arange(len(W_RD), device=W_RD.device)
        constants_R = (self.rest[positions_R] * W_RD).sum(1)
        gradients: Sequence[Tensor | None] = [None] * len(self.given)
        if self.arrived.requires_grad:
            # What is linear needs one forward pass for all functionals, and one backward each.
            seeds_RTD = self.arrived.new_zeros(len(W_RD), *self.arrived.shape)
            seeds_RTD[at_R, positions_R] = W_RD
            gradients = torch.autograd.grad(
                self.arrived,
                list(self.given.values()),
                seeds_RTD,
                retain_graph=True,
                allow_unused=True,
                is_grads_batched=True,
            )
        by_hook = {
            name: gradient.flatten(0, 1)
            for name, gradient in zip(self.given, gradients, strict=True)
            if gradient is not None
        }
        return Rows(by_hook, constants_R)


def reading(
    model: Any,
    frozen: Frozen,
    given: Mapping[str, Tensor],
    read: str,
    passing: Mapping[str, Passing] | None = None,
) -> Reading:
    """The activation at `read` of one frozen context as a function of the given ones [T, D], which
    `passing` adds to as in `run`.

    >>> rows = reading(model, held, {hook: x_TD}, frozen.LOGITS).rows(positions_R, W_RV)
    """
    zeros = {name: torch.zeros_like(value_TD)[None] for name, value_TD in given.items()}
    with torch.no_grad():
        rest_TD = run(model, frozen, zeros, [read], passing=passing)[read][0]
    leaves = {name: value_TD[None].detach().requires_grad_() for name, value_TD in given.items()}
    with torch.enable_grad():
        arrived_TD = run(model, frozen, leaves, [read], passing=passing)[read][0]
    return Reading(leaves, arrived_TD, rest_TD)
