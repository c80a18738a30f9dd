"""A plain Hugging Face model run with something acting at the inputs and outputs of its modules,
with the attention that transformers picks for its architecture.

Shapes: C contexts, T positions, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from saelab.models.families import Point, point
from saelab.models.model import Model

Act = Callable[[Tensor], Tensor | None]


def forward(
    model: Model,
    tokens_CT: Tensor,
    hooks: list[tuple[str, Act]],
    last: bool = False,
    enter: int | None = None,
) -> Tensor:
    """Logits [C, T, V] ([C, 1, V] for the last position alone) with what acts at the points, by
    canonical name, each of which the model's family has.

    enter: the layer (their number: the last norm) at which the run begins, with the stream
    [C, T, D] given in the place of tokens.
    """
    with ExitStack() as stack:
        if enter is not None:
            stack.enter_context(_entering(model, enter, tokens_CT))
            tokens_CT = tokens_CT.new_zeros(tokens_CT.shape[:2], dtype=torch.int64)
        for name, act in hooks:
            stack.callback(_attach(model, name, act).remove)
        options = {"use_cache": False, "logits_to_keep": int(last)}
        return model.plain(input_ids=tokens_CT, **options).logits


@contextmanager
def _entering(model: Model, layer: int, stream_CTD: Tensor) -> Iterator[None]:
    """Within the block the layers before `layer` pass the stream on in no time."""
    assert model.family is not None
    before: Any = model.plain.get_submodule(model.family.blocks)
    before = before[:layer]
    at = "ln_final.hook_in" if layer == model.cfg.n_layers else f"blocks.{layer}.hook_in"
    handle = _attach(model, at, lambda acts: stream_CTD)
    for block in before:
        block.forward = _unchanged  # of this object alone: it hides its class's
    try:
        yield
    finally:
        handle.remove()
        for block in before:
            del block.forward


def _unchanged(hidden_states: Tensor, *args: Any, **options: Any) -> Tensor:
    return hidden_states


def _attach(model: Model, name: str, act: Act) -> Any:
    assert model.family is not None
    where = point(model.family, model.plain.config, name)
    assert where is not None  # `running` comes here with points that the family has
    module = model.plain.get_submodule(where.module)
    if where.side == "hook_in":

        def enter(module: Any, args: tuple, given: dict) -> tuple[tuple, dict] | None:
            if args:
                changed = _acted(act, args[0], where)
                return None if changed is None else ((changed, *args[1:]), given)
            changed = _acted(act, given["hidden_states"], where)
            return None if changed is None else (args, given | {"hidden_states": changed})

        return module.register_forward_pre_hook(enter, with_kwargs=True)

    def leave(module: Any, args: tuple, output: Any) -> Any:
        if isinstance(output, tuple):
            changed = _acted(act, output[0], where)
            return None if changed is None else (changed, *output[1:])
        return _acted(act, output, where)

    return module.register_forward_hook(leave)


def _acted(act: Act, acts: Tensor, where: Point) -> Tensor | None:
    """What takes the place of a module's input or output; the act sees heads apart."""
    if where.heads is None:
        return act(acts)
    changed = act(acts.unflatten(-1, (where.heads, -1)))
    return None if changed is None else changed.flatten(-2)
