"""Caches and runs that reproductions share: made once in the work folder, found there
afterwards."""

import functools
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from saelab import SAE
from saelab.runs import RunFolder

from ..config import Config
from .claims import Settings

PASS = 5  # runs trained in one pass over their cache


def model(settings: Settings) -> Any:
    """The bundled model, loaded once per process and device."""
    return _model(settings.device, settings.model_dtype)


@functools.cache
def _model(device: str, dtype: str) -> Any:
    from saelab import models

    return models.load("bundled", device, dtype=dtype)


def sae(settings: Settings, folder: Path) -> SAE:
    """The SAE of a run, on the settings' device."""
    return SAE.load(folder).to(settings.device)


def digest(*values: Any) -> str:
    """Eight characters that stand for some plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def cache(
    settings: Settings,
    text: str,
    hooks: Sequence[str],
    tokens: int,
    gradients: bool = False,
    held_out: int = 0,
) -> Path:
    """A cache of the bundled model in the work folder, captured unless it is there; its name
    follows from what is asked. held_out: how many of the tokens to hold out (0: the text's
    share)."""
    from saelab.activations.from_text import from_text
    from saelab.activations.writer import write

    asked = [text, list(hooks), gradients]
    asked += [] if settings.model_dtype == "float32" else [settings.model_dtype]
    asked += [held_out] if held_out else []
    out = settings.work / f"cache-{Path(text).name}-{tokens}-{digest(*asked)}"
    options = {"gradients": gradients, "n_held_out": held_out}
    source = from_text(model(settings), text, hooks, tokens, **options)
    return write(source, out, lambda done: settings.progress("capture", done, tokens))


def run_folder(settings: Settings, config: Config) -> Path:
    """Where a configuration's run lies: its name follows from everything that decides the
    result."""
    free = {"out", "cache", "wandb", "log_every", "checkpoint_every", "device"}
    fields = {name: value for name, value in asdict(config).items() if name not in free}
    name = (
        f"{config.dictionary or config.sparsify}-k{config.k}-f{config.features}-seed{config.seed}"
    )
    return settings.work / "runs" / f"{name}-{digest(fields, Path(config.cache).name)}"


def runs(settings: Settings, configs: Sequence[Config]) -> list[Path]:
    """The run folder of each configuration (whose own `out` is ignored); those not yet finished are
    trained, several per pass."""
    folders = [run_folder(settings, config) for config in configs]
    missing = {
        f: c for f, c in zip(folders, configs, strict=True) if not RunFolder(f).header.exists()
    }
    for group in _passes(missing):
        _train(settings, group)
    return folders


def _passes(missing: dict[Path, Config]) -> list[dict[Path, Config]]:
    """The missing runs in groups that can share a pass."""
    groups: dict[tuple, list[tuple[Path, Config]]] = {}
    for folder, config in missing.items():
        groups.setdefault(
            (config.cache, config.batch, config.tokens, config.order_seed, config.dictionary), []
        ).append((folder, config))
    return [
        dict(group[i : i + PASS]) for group in groups.values() for i in range(0, len(group), PASS)
    ]


def _train(settings: Settings, group: dict[Path, Config]) -> None:
    """Train one pass; what a killed one left is started afresh."""
    from .. import train

    for folder in group:
        shutil.rmtree(folder, ignore_errors=True)
    what = f"train {', '.join(sorted({config.sparsify for config in group.values()}))}"
    configs = [
        replace(config, out=str(folder), checkpoint_every=config.n_steps, device=settings.device)
        for folder, config in group.items()
    ]
    train(configs, progress=lambda step, n_steps, done: settings.progress(what, step, n_steps))
