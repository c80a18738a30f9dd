"""Running a language model: the only place that does.

A hook is named by any of its names; what comes back carries the name that was asked for. An *edit*
changes the activation at a hook: a tensor takes its place, a function gets it and returns what
takes its place (None: it stays).

Shapes: C contexts, T positions, D width, V vocabulary.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.models import plain
from saelab.models.hooks import bridge_of, resolve_hook
from saelab.models.model import Model
from saelab.models.weights import refuse_headless

Edit = Tensor | Callable[[Tensor], Tensor | None]
Edits = Mapping[str, Edit] | Sequence[tuple[str, Edit]]
Act = Callable[[Tensor], Tensor | None]
CONTEXTS = 16  # in one forward pass, at most
TOKENS = 1 << 12  # in one forward pass on the CPU: what a layer keeps of them stays in its cache
LOGITS = 1 << 27  # in one forward pass whose logits are kept whole


class Ran(NamedTuple):
    """A run's result."""

    logits: Tensor
    """[C, T, V]; [C, V] where only the last position was asked for"""
    acts: dict[str, Tensor]
    """by the names asked for"""


_engine: ContextVar[str] = ContextVar("engine", default="cheapest")


class _Seen(Exception):
    """Everything asked for has been read: the rest of the forward pass is not needed."""


@contextlib.contextmanager
def engine(name: Literal["cheapest", "bridge"]) -> Iterator[None]:
    """Within the block everything runs in this way: `with engine("bridge"): ...` has each number
    come from the bridge."""
    token = _engine.set(name)
    try:
        yield
    finally:
        _engine.reset(token)


def contexts_per_pass(model: Any, context: int, *, logits: bool = False) -> int:
    """How many contexts of `context` tokens go through the model at once. logits: of all, kept."""
    fits = LOGITS // (context * model.cfg.d_vocab) if logits else CONTEXTS
    if str(model.cfg.device).startswith("cpu"):
        fits = min(fits, TOKENS // context)
    return max(1, min(CONTEXTS, fits))


def run(
    model: Any,
    tokens_CT: Tensor,
    edits: Edits = (),
    *,
    read: Sequence[str] = (),
    last: bool = False,
    enter: int | None = None,
) -> Ran:
    """Run the model with edits in place; at a hook they act in their order, and then it is read.

    last: logits of the last position only. enter: a layer; the layers before it do not run, and
    what is given as tokens is the stream [C, T, D] that enters it. Where gradients are on they flow
    through the edits and from what is read, which is then a view of that place alone.

        edits = {"blocks.1.hook_mlp_out": torch.zeros_like}
        logits, acts = run(model, tokens, edits, read=[hook])

    Raises UsageError for a hook that this model lacks or that does not fire, or if it has no head.
    """
    refuse_headless(model)
    acts: dict[str, Tensor] = {}
    hooks = _points(model, edits)
    hooks += [(resolve_hook(model, name), _reading(acts, name)) for name in read]
    logits = _forward(model, tokens_CT, hooks, last, enter)
    _check_fired(read, acts)
    return Ran(logits[:, -1] if last else logits, {name: acts[name] for name in read})


@torch.no_grad()
def read(
    model: Any,
    tokens_CT: Tensor,
    hooks: Sequence[str],
    edits: Edits = (),
    *,
    enter: int | None = None,
) -> dict[str, Tensor]:
    """Activations [C, T, ...] at the hooks, with edits in place; the forward pass ends at the last
    of them. enter: as of `run`.

        acts = read(model, tokens, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"]

    Raises UsageError for a hook that this model does not have or that does not fire.
    """
    acts: dict[str, Tensor] = {}

    def stop_after_all(_: Tensor) -> None:
        if len(acts) == len(set(hooks)):
            raise _Seen

    reading = _points(model, edits)
    for name in dict.fromkeys(hooks):
        point = resolve_hook(model, name)
        reading += [(point, _reading(acts, name)), (point, stop_after_all)]
    with contextlib.suppress(_Seen):
        _forward(model, tokens_CT, reading, enter=enter)
    _check_fired(hooks, acts)
    return {name: acts[name] for name in hooks}


def logits(model: Any, tokens_CT: Tensor, edits: Edits = (), **options: Any) -> Tensor:
    """Logits [C, T, V] of the model with edits in place; options as of `run`.

    after = logits(model, tokens, {"blocks.0.hook_attn_out": torch.zeros_like}, last=True)
    """
    logits_CTV = run(model, tokens_CT, edits, **options).logits
    assert logits_CTV is not None
    return logits_CTV


def gradients(
    model: Any, tokens_CT: Tensor, hooks: Sequence[str], counted_CT: Any = None, edits: Edits = ()
) -> dict[str, Tensor]:
    """Activations at the hooks, with edits in place, and, as NAME.grad, dL/dx there for L the
    context's summed next-token cross-entropy in nats.

    counted_CT: the tokens whose prediction makes up the loss (default: all but the first). Raises
    UsageError for a hook that does not fire or does not reach the loss.
    """
    leaves: dict[str, Tensor] = {}

    def leaf(name: str) -> Act:
        def keep(acts: Tensor) -> Tensor:
            leaves[name] = acts if acts.requires_grad else acts.detach().clone().requires_grad_()
            return leaves[name]

        return keep

    with torch.enable_grad():
        leaves_at = [(name, leaf(name)) for name in hooks]
        logits_CTV = logits(model, tokens_CT, [*_points(model, edits), *leaves_at])
        _check_fired(hooks, leaves)
        left_out = torch.zeros_like(tokens_CT) if counted_CT is None else ~counted_CT
        wanted_CT = tokens_CT.masked_fill(left_out.bool(), -100)  # what cross_entropy ignores
        targets = wanted_CT[:, 1:].flatten().to(logits_CTV.device)
        loss = torch.nn.functional.cross_entropy(
            logits_CTV[:, :-1].flatten(0, 1), targets, reduction="sum"
        )
        reached = torch.autograd.grad(loss, [leaves[name] for name in hooks], allow_unused=True)
    by_hook = dict(zip(hooks, reached, strict=True))
    if cut := [name for name, gradient in by_hook.items() if gradient is None]:
        raise UsageError(
            f"hooks that do not reach the loss and so have no gradient: {', '.join(cut)}"
        )
    acts = {name: leaves[name].detach() for name in hooks}
    return acts | {f"{name}.grad": gradient for name, gradient in by_hook.items()}


def shapes(model: Any, hooks: Sequence[str]) -> dict[str, list[int]]:
    """The shape of one position's activation at each hook, from a probe of two short contexts.

    Raises UsageError for a hook that does not fire, or that gives no float vector per position
    (attention patterns, token ids).
    """
    heads = {model.cfg.n_heads, getattr(model.cfg, "n_key_value_heads", None)}
    lengths = (n for n in (2, 3, 4) if n not in heads and n <= model.cfg.n_ctx)
    length = next(lengths)  # heads are not to be taken for positions
    probed = read(model, torch.zeros(2, length, dtype=torch.int64), hooks)
    for name, acts in probed.items():
        if acts.shape[:2] != (2, length) or acts.ndim < 3 or not acts.is_floating_point():
            kind = str(acts.dtype).removeprefix("torch.")
            raise UsageError(
                f"hook {name!r} gives {kind} of shape {list(acts.shape)} for 2 contexts of "
                f"{length} tokens: only hooks with a float vector per position can be cached"
            )
    return {name: list(acts.shape[2:]) for name, acts in probed.items()}


def _points(model: Any, edits: Edits) -> list[tuple[str, Act]]:
    pairs = edits.items() if isinstance(edits, Mapping) else edits
    return [(resolve_hook(model, name), _acting(edit)) for name, edit in pairs]


def _acting(edit: Edit) -> Act:
    if isinstance(edit, Tensor):
        return lambda acts: edit.reshape(acts.shape).to(acts)
    return edit


def _reading(acts: dict[str, Tensor], name: str) -> Act:
    def keep(value: Tensor) -> Tensor | None:
        if torch.is_grad_enabled():
            acts[name] = value.view_as(value)
            return acts[name]  # the run goes on with the view: its gradient is of this place alone
        acts[name] = value.clone()  # the model may go on to change it in place
        return None

    return keep


def _check_fired(hooks: Sequence[str], acts: Mapping[str, Tensor]) -> None:
    if silent := [name for name in hooks if name not in acts]:
        raise UsageError(f"hooks that never fire in this model: {', '.join(silent)}")


def _forward(
    model: Any,
    tokens_CT: Tensor,
    hooks: list[tuple[str, Act]],
    last: bool = False,
    enter: int | None = None,
) -> Tensor:
    """Logits [C, T or 1, V] of a run with what acts at the hooks (canonical names), by the cheapest
    way."""
    tokens_CT = tokens_CT.to(str(model.cfg.device))
    if is_plain(model, hooks):
        return plain.forward(model, tokens_CT, hooks, last, enter)
    bridge = bridge_of(model)
    if last:
        hooks = [*hooks, (resolve_hook(bridge, "unembed.hook_in"), lambda acts: acts[:, -1:])]
    options = {} if enter is None else {"start_at_layer": enter}
    fwd_hooks = [(name, lambda acts, hook, act=act: act(acts)) for name, act in hooks]
    return bridge.run_with_hooks(tokens_CT, return_type="logits", fwd_hooks=fwd_hooks, **options)


def is_plain(model: Any, hooks: Sequence[tuple[str, Act]] = ()) -> bool:
    """Whether the plain Hugging Face model has all these points."""
    if _engine.get() == "bridge" or not isinstance(model, Model) or model.family is None:
        return False
    return all(name in model.names for name, _ in hooks)
