"""A language model behind one small door: load it, know which one it is, name its hook points."""

from saelab.models.hooks import aliases, enabled, hook_points, resolve_hook
from saelab.models.loading import identity, load

__all__ = ["aliases", "enabled", "hook_points", "identity", "load", "resolve_hook"]
