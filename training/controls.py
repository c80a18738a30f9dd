"""The control that is trained: an SAE's twin whose decoder stays random."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from saelab.errors import UsageError
from saelab.runs import RunFolder
from saelab.sae import SAE

from . import config as configs
from .checks import OF_LIVE
from .config import Config


def frozen_config(folder: RunFolder, cache: Path, device: str) -> Config:
    """The configuration of a run's twin: the run's own, on this cache, with its decoder frozen.
    Raises UsageError for an SAE that was not trained here."""
    if not folder.config.is_file():
        raise UsageError("it was not trained here: how a frozen decoder would be is not known")
    held = configs.read(folder.config)
    usual: Mapping[str, Any] = {name: getattr(Config, name) for name in OF_LIVE}
    where = {"cache": str(cache), "out": str(folder.frozen_decoder), "device": device}
    return replace(held, freeze="decoder", live=False, wandb=False, **usual, **where)


def frozen_decoder(config: Config, train: Callable[[Config], Any]) -> SAE:
    """The twin of that configuration, trained unless its folder holds it; what was killed goes on.

    >>> config = frozen_config(RunFolder("runs/a"), cache.path, "cpu")
    >>> twin = frozen_decoder(config, partial(training.train, resume=True))
    """
    folder = RunFolder(config.out)
    if not (folder.has_sae() and not configs.read(folder.config).differing(config)):
        train(config)
    return SAE.load(folder.path)
