"""Several runs from one recipe: a field given as a list makes a run of each of its values, several
make their product."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from saelab import joint
from saelab.activations import Cache
from saelab.errors import UsageError

from .checks import ONE_PASS, layer_of
from .config import Config


class Sweep(NamedTuple):
    """base: the fields that are one value, and the first of those that are several. over: the
    values of the latter."""

    base: Config
    over: dict[str, tuple]

    def configs(self) -> list[Config]:
        """The runs, each in a folder of base.out that its fields name; the base alone if nothing is
        swept over. Of a crosscoder or a cross-layer transcoder several hooks are one value.

        A hook with a `*` stands for every hook of the cache that it matches; a `*` in a target for
        the number of the hook's layer. Raises UsageError for a pattern that matches none.
        """
        over = self.over
        if "*" in (self.base.hook or "") and "hook" not in over:
            over = {"hook": matching(self.base), **over}
        base = self.base
        if base.crosscoder or base.clt:
            several = over.get("hook", tuple(joint.parts(base.hook or "")))
            over = {name: values for name, values in over.items() if name != "hook"}
            base = replace(base, hook=joint.joined(sorted(several, key=_layer)) or None)
        if not over:
            return [_aimed(base)]
        rows = [dict(zip(over, row, strict=True)) for row in itertools.product(*over.values())]
        configs = []
        for row in rows:
            out = str(Path(base.out) / name(row)) if base.out else ""
            configs.append(_aimed(replace(base, **row, out=out)))
        return configs


def matching(config: Config) -> tuple[str, ...]:
    """The hooks of the configuration's cache that its hook, a pattern, matches."""
    if config.live:
        raise UsageError(f"--hook {config.hook} names hooks of a cache: with --live give each")
    cache = Cache(config.cache)
    hooks = tuple(hook for hook in cache.hooks if fnmatchcase(hook, str(config.hook)))
    if not hooks:
        raise UsageError(
            f"no hook of {config.cache} is {config.hook}: it holds {', '.join(cache.hooks)}"
        )
    return hooks


def _layer(hook: str) -> int:
    """The number of a hook's layer, by which several are put in order; -1 of none."""
    layer = layer_of(hook)
    return -1 if layer is None else layer


def _aimed(config: Config) -> Config:
    """The configuration with its hook's layer in place of a target's `*`; of several hooks with a
    target for each."""
    if "*" not in (config.target or ""):
        return config
    hooks = joint.parts(config.hook or "")
    if any(_layer(hook) < 0 for hook in hooks):
        raise UsageError(
            f"--target {config.target} takes its layer from the hook, and {config.hook} has none: "
            "give --hook 'blocks.*.mlp.hook_in'"
        )
    targets = (str(config.target).replace("*", str(_layer(hook))) for hook in hooks)
    return replace(config, target=joint.joined(targets))


def name(row: Mapping[str, Any]) -> str:
    """`k=32,seed=1`: a run's folder in its sweep's."""
    return ",".join(
        f"{field}={'-'.join(map(str, v)) if isinstance(v, tuple) else v}"
        for field, v in row.items()
    )


def of(values: Mapping[str, Any]) -> Sweep:
    """The sweep over the fields of a recipe that are tuples; of prefixes, itself a tuple, over a
    tuple of tuples.

    Raises UsageError for a list without entries, or a list of what runs of one pass share.
    """
    over = {
        field: value
        for field, value in values.items()
        if isinstance(value, tuple) and _several(field, value)
    }
    for field, value in over.items():
        if not value:
            raise UsageError(f"{field} is a list without entries: give it at least one value")
        if field in (*ONE_PASS, "out"):
            raise UsageError(
                f"{field} cannot be a list: runs of a sweep share one pass over one cache; start "
                "one sweep for each"
            )
    return Sweep(
        replace(Config(), **{**values, **{field: value[0] for field, value in over.items()}}), over
    )


def _several(field: str, value: tuple) -> bool:
    return field != "prefixes" or any(isinstance(one, tuple) for one in value)
