"""Training SAEs: `Config` says what, `train` does it."""

from collections.abc import Sequence
from typing import Any

from . import config
from .config import Config

__all__ = ["Config", "config", "train"]


def train(configs: Config | Sequence[Config], **options: Any) -> Any:
    """Train one SAE per config in one pass; see `training.loop.train`."""
    from . import loop

    return loop.train(configs, **options)
