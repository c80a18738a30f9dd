"""A plain Hugging Face model run with something acting at the inputs and outputs of its modules,
with the attention that transformers picks for its architecture.

Shapes: C contexts, T positions, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from saelab.models.families import Point, point
from saelab.models.model import Model

Act = Callable[[Tensor], Tensor | None]


def forward(model: Model, tokens_CT: Tensor, hooks: list[tuple[str, Act]], last: bool) -> Tensor:
    """Logits [C, T, V] ([C, 1, V] for the last position alone) with what acts at the points, by
    canonical name, each of which the model's family has."""
    handles = []
    try:
        for name, act in hooks:
            handles.append(_attach(model, name, act))
        options = {"use_cache": False, "logits_to_keep": int(last)}
        return model.plain(input_ids=tokens_CT, **options).logits
    finally:
        for handle in handles:
            handle.remove()


def _attach(model: Model, name: str, act: Act) -> Any:
    where = point(model.family, model.plain.config, name)
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
