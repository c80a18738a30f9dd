"""Runs whose dictionary is fitted at once instead of being trained step by step: the label-free
methods of `saelab.dictionaries`, saved and opened like any run.

Shapes: N tokens, D width.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from saelab.activations import Cache
from saelab.dictionaries import methods
from saelab.digests import sha256
from saelab.errors import UsageError
from saelab.origin import Origin
from saelab.runs import RunFolder
from saelab.sae import SAE

from . import folder as folder_
from . import start
from .config import Config
from .record import Record
from .step import Step

PROBE_TOKENS = 16
MEASURED = 4096  # tokens on which the row of metrics.jsonl is measured
DENSE = 0.1  # share of the tokens from which a feature is dense


def fit_all(
    configs: Sequence[Config], cache: Cache, hooks: Sequence[str], resume: bool
) -> list[Path]:
    """Fit each configuration's dictionary to the first tokens of the cache's shuffled stream, and
    write its run. What a killed one left is fitted anew.

    Raises UsageError as `methods.fit` does, for a run folder that is occupied, and where some of
    the configurations are of SAEs, which share a pass of their own.
    """
    if not all(config.dictionary for config in configs):
        raise UsageError("dictionaries are fitted apart from SAEs: train those by themselves")
    with folder_.opened(configs, cache, resume, False) as (folders, _, keep):
        for config, folder, hook in zip(configs, folders, hooks, strict=True):
            x_ND = sample(cache, hook, config)
            _write(config, folder, cache, hook, x_ND)
            keep()
    return folders


def sample(cache: Cache, hook: str, config: Config) -> Tensor:
    """[N, D]: as many tokens as the method takes of those asked, and as the cache has."""
    n_tokens = min(config.tokens, methods.METHODS[config.dictionary or ""].tokens, cache.n_tokens())
    return next(cache.batches(hook, n_tokens, config.order_seed)).to(config.place)


def _write(config: Config, folder: Path, cache: Cache, hook: str, x_ND: Tensor) -> None:
    """The SAE of one configuration with its origin, and the one row of its metrics."""
    name = config.dictionary or ""
    fitted = methods.fit(name, x_ND, config.features, config.k, config.seed)
    sae = SAE.of(fitted.weights, fitted.sparsify, encoder=fitted.encoder)
    step = measured(sae, x_ND[:MEASURED])
    sae = sae.to("cpu")
    sae.origin = Origin(
        hook,
        model=cache.identity,
        cache=os.path.relpath(cache.path.resolve(), folder.resolve()),
        cache_hash=sha256(cache.path / "manifest.json"),
        seed=config.seed,
        start=folder_.start(folder),
        configuration=start.configuration(config),
        tokens=len(x_ND),
        sparsify=name,
        k=fitted.sparsify.k,
        more=cache.plan.habits,
    )
    record = Record(folder, config, 0)
    record.row(step=1, tokens=len(x_ND), **step.row())
    record.close()
    sae.save(RunFolder(folder).sae, x_ND[:PROBE_TOKENS].cpu())


@torch.no_grad()
def measured(sae: SAE, x_ND: Tensor) -> Step:
    """What a step of training would have measured on these tokens."""
    x_hat_ND, code = sae.reconstruct(x_ND)
    left = float((x_ND - x_hat_ND).square().sum())
    fvu = left / max(float((x_ND - x_ND.mean(0)).square().sum()), 1e-30)
    fired_F = torch.bincount(code.features[code.values != 0], minlength=sae.n_features)
    dead = float((fired_F == 0).double().mean())
    dense = float((fired_F > DENSE * len(x_ND)).double().mean())
    l0 = float(fired_F.sum()) / len(x_ND)
    return Step(fvu, {"fvu": fvu}, l0, dead, dense, 0, None, 0.0)
