"""A language model behind one small door: load it, know which one it is, name its hook points."""

from saelab.models.hooks import aliases, enabled, hook_points, once_each, resolve_hook
from saelab.models.identity import check, dtype_of, identity, name_of, record
from saelab.models.loading import load
from saelab.models.model import Model

__all__ = [
    "Model",
    "aliases",
    "check",
    "dtype_of",
    "enabled",
    "hook_points",
    "identity",
    "load",
    "name_of",
    "once_each",
    "record",
    "resolve_hook",
]
