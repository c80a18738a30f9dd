"""Sources by name: the library's own, and those that others register."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from saelab.activations.source import Source
from saelab.errors import UsageError

BUILT_IN = {
    "text": "saelab.activations.from_text",
    "arrays": "saelab.activations.from_arrays",
}  # name: the module that holds from_NAME, imported when it is asked for
_registered: dict[str, Callable[..., Source]] = {}


def register(name: str, factory: Callable[..., Source]) -> None:
    """Let `Cache.write(out, name, **options)` write what `factory(**options)` gives. Raises
    UsageError for a name that is no word or is taken, and for a factory that cannot be called.

        register("noise", lambda n: Noise(n))
        cache = Cache.write("cache", "noise", n=1000)
    """
    if not isinstance(name, str) or not callable(factory):
        raise UsageError(
            f"source {name!r} is made by {factory!r}: a word and a function that gives a Source "
            "are right"
        )
    if name in BUILT_IN or name in _registered:
        raise UsageError(f"there is a source {name!r} already: choose another name")
    _registered[name] = factory


def make(name: str, **options: Any) -> Source:
    """The source of that name. Raises UsageError for a name that nobody registered."""
    if name in BUILT_IN:
        return getattr(import_module(BUILT_IN[name]), f"from_{name}")(**options)
    if name not in _registered:
        known = ", ".join([*BUILT_IN, *_registered])
        raise UsageError(f"no source {name!r}; there are {known}")
    return _registered[name](**options)
