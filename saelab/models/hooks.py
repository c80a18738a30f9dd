"""Hook points: canonical names, aliases, and those that must be switched on before they fire.

What a plain Hugging Face model has is named by the table of its family; for all else the bridge is
asked, which takes seconds to import.
"""

import difflib
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from saelab import joint
from saelab.errors import UsageError
from saelab.models.families import other_names
from saelab.models.model import Model

_points: "weakref.WeakKeyDictionary[Any, dict[str, str]]" = weakref.WeakKeyDictionary()

# These points exist in every bridge and stay silent until their switch is on.
SWITCHES = {
    "hook_result": "use_attn_result",
    "hook_q_input": "use_split_qkv_input",
    "hook_k_input": "use_split_qkv_input",
    "hook_v_input": "use_split_qkv_input",
    "hook_attn_in": "use_attn_in",
    "hook_mlp_in": "use_hook_mlp_in",
}


def bridge_of(model: Any) -> Any:
    """The bridge behind a model (a bridge: itself)."""
    return model.bridge if isinstance(model, Model) else model


def hook_points(model: Any) -> dict[str, str]:
    """Every name a hook point of this model answers to, with its canonical name (`hook_resid_post`
    is `hook_out`)."""
    if isinstance(model, Model) and not model.reads_text:
        return model.names
    bridge = bridge_of(model)
    if bridge not in _points:
        _points[bridge] = {name: point.name or name for name, point in bridge.hook_dict.items()}
    return _points[bridge]


def aliases(model: Any, name: str) -> list[str]:
    """The other names of a hook point, sorted."""
    plain = model.names if isinstance(model, Model) else {}
    names = plain if name in plain else hook_points(model)
    canonical = names.get(name, name)
    return sorted(other for other, target in names.items() if target == canonical and other != name)


def _unknown(model: Any, name: str, names: list[str]) -> UsageError:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    nearest = f"nearest: {', '.join(near)}; " if near else ""
    common = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
    ends = [*(f"hook_{end}" for end in common), "attn.hook_z"]
    held = ", ".join(end for end in ends if f"blocks.0.{end}" in names)
    last = model.cfg.n_layers - 1
    return UsageError(
        f"this model has no hook {name!r}; {nearest}blocks.0 to blocks.{last} have, among others, "
        f"{held}"
    )


def resolve_hook(model: Any, name: str) -> str:
    """The canonical name of hook `name`, after switching on what it needs to fire.

        resolve_hook(model, "blocks.1.hook_resid_post")  # blocks.1.hook_out

    Raises UsageError naming near matches for an unknown hook, and where this architecture cannot
    make the hook fire.
    """
    if isinstance(model, Model) and name in model.names:
        return model.names[name]
    if len(joint.parts(name)) > 1:
        raise UsageError(f"{name} is several hook points, and this takes an SAE of one of them")
    names = hook_points(model)
    known = next((other for other in (name, *other_names(name)) if other in names), None)
    if known is None:
        raise _unknown(model, name, list(names))
    canonical = names[known]
    switch = SWITCHES.get(canonical.rsplit(".", 1)[-1])
    if switch is not None:
        _switch(bridge_of(model), {switch: True}, f"hook {name!r}")
    return canonical


def once_each(model: Any, hooks: Sequence[str]) -> list[str]:
    """Hook points, once each, by the name that each was first asked for by; `*` in a name is every
    layer. Raises UsageError as `resolve_hook` does, and where none is named.

        once_each(model, ["blocks.*.hook_mlp_out"])  # ['blocks.0.hook_mlp_out', ...]
    """
    layers = [str(i) for i in range(model.cfg.n_layers)]
    by_point: dict[str, str] = {}
    for hook in hooks:
        for name in [hook.replace("*", i) for i in layers] if "*" in hook else [hook]:
            by_point.setdefault(resolve_hook(model, name), name)
    if not by_point:
        last = f"blocks.{layers[-1]}.hook_resid_post"
        raise UsageError(f"no hook named: --hook NAME, for example --hook {last}")
    return list(by_point.values())


@contextmanager
def enabled(model: Any, **switches: bool) -> Iterator[None]:
    """Switches on (or off) for the length of a with-block: `enabled(model,
    use_split_qkv_input=True)`; names as in SWITCHES.

    With `use_split_qkv_input` on, edits to `ln1.hook_scale` no longer reach the output: frozen
    norms need it off. Raises UsageError for a name that is no switch and where this architecture
    cannot be switched.
    """
    if unknown := sorted(set(switches) - set(SWITCHES.values())):
        raise UsageError(
            f"no switch {unknown[0]!r}: switches are {', '.join(sorted(set(SWITCHES.values())))}"
        )
    bridge = bridge_of(model)
    before = {name: bool(getattr(bridge.cfg, name)) for name in switches}
    try:
        _switch(bridge, switches)
        yield
    finally:
        _switch(bridge, before)


def _switch(bridge: Any, switches: dict[str, bool], what: str = "") -> None:
    for name, on in sorted(
        switches.items(), key=lambda item: item[1]
    ):  # off before on: some exclude each other
        if bool(getattr(bridge.cfg, name)) != on:
            try:
                getattr(bridge, f"set_{name}")(on)
            except (ValueError, NotImplementedError) as error:
                raise UsageError(
                    f"{what or name} cannot be used here: {str(error).splitlines()[0]}"
                ) from error
