"""Hook points of a TransformerBridge: canonical names, aliases, and those that must be switched on
before they fire."""

import difflib
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from saelab.errors import UsageError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

_points: "weakref.WeakKeyDictionary[TransformerBridge, dict[str, str]]" = (
    weakref.WeakKeyDictionary()
)

# These points exist in every bridge and stay silent until their switch is on.
SWITCHES = {
    "hook_result": "use_attn_result",
    "hook_q_input": "use_split_qkv_input",
    "hook_k_input": "use_split_qkv_input",
    "hook_v_input": "use_split_qkv_input",
    "hook_attn_in": "use_attn_in",
    "hook_mlp_in": "use_hook_mlp_in",
}


def hook_points(bridge: "TransformerBridge") -> dict[str, str]:
    """Every name a hook point of this model answers to, with its canonical name (`hook_resid_post`
    is `hook_out`)."""
    if bridge not in _points:
        _points[bridge] = {name: point.name or name for name, point in bridge.hook_dict.items()}
    return _points[bridge]


def aliases(bridge: "TransformerBridge", canonical: str) -> list[str]:
    """The other names of a hook point, sorted."""
    return sorted(
        name
        for name, target in hook_points(bridge).items()
        if target == canonical and name != canonical
    )


def _unknown(bridge: "TransformerBridge", name: str, names: list[str]) -> UsageError:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    nearest = f"nearest: {', '.join(near)}; " if near else ""
    shown = [
        "hook_resid_pre",
        "hook_resid_mid",
        "hook_resid_post",
        "hook_attn_out",
        "hook_mlp_out",
        "attn.hook_z",
    ]
    shown = [hook for hook in shown if f"blocks.0.{hook}" in names]
    blocks = f"blocks.0 to blocks.{bridge.cfg.n_layers - 1} have, among others, {', '.join(shown)}"
    return UsageError(f"this model has no hook {name!r}; {nearest}{blocks}")


def resolve_hook(bridge: "TransformerBridge", name: str) -> str:
    """The canonical name of hook `name`, after switching on what it needs to fire.

    Raises UsageError naming near matches for an unknown hook, and where this architecture cannot
    make the hook fire.
    """
    names = hook_points(bridge)
    if name not in names:
        raise _unknown(bridge, name, list(names))
    canonical = names[name]
    switch = SWITCHES.get(canonical.rsplit(".", 1)[-1])
    if switch is not None:
        _switch(bridge, {switch: True}, f"hook {name!r}")
    return canonical


@contextmanager
def enabled(bridge: "TransformerBridge", **switches: bool) -> Iterator[None]:
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
    before = {name: bool(getattr(bridge.cfg, name)) for name in switches}
    try:
        _switch(bridge, switches)
        yield
    finally:
        _switch(bridge, before)


def _switch(bridge: "TransformerBridge", switches: dict[str, bool], what: str = "") -> None:
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
