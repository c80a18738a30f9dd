"""The one way to get a run's SAE together with the cache and the model that it belongs to.
Importing this imports nothing heavy.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from saelab.digests import sha256
from saelab.errors import UsageError
from saelab.origin import ARRAYS, SYNTHETIC, Identity, Origin
from saelab.runs import RunFolder

CLOSE = 0.02  # of the activations' rms, by which float16 and bfloat16 caches are rounded


class Opened(NamedTuple):
    """An SAE with what it belongs to, checked against its record."""

    folder: RunFolder
    sae: Any
    """a `saelab.SAE`"""
    cache: Any
    """a `saelab.activations.Cache`; None if it was not asked for"""
    model: Any
    """what `saelab.models.load` returns, or the one given; None if it was not asked for"""


def open(
    path: Path | str,
    model: Any = None,
    cache: Any = None,
    *,
    needs: Sequence[str] = ("model", "cache"),
    load: Callable[[Any], Any] | None = None,
) -> Opened:
    """The SAE of a run with its model and cache, which are those of its record or are refused.

    model: a name, a folder or a model in memory, where it is not (or not any more) what the
    record names; cache: a folder or a `Cache`, likewise. needs: which of the two are wanted.
    load: what loads a model (default: `models.load`).

    Raises UsageError for a folder without an SAE, for a model or cache that is gone, for
    another one (naming the field that differs), and for a hook that either lacks.

        _, sae, cache, model = saelab.open("runs/demo", model="models/where/it/lies/now")
    """
    from saelab import formats

    folder = RunFolder(path)
    sae = formats.load(folder.path)
    if sae.origin.model and sae.origin.model.name == SYNTHETIC and "model" in needs:
        raise UsageError(
            f"{folder.path} is of a synthetic world, not of a model: use "
            "saelab.evaluation.ground_truth.measure"
        )
    opened = Opened(
        folder,
        sae,
        _cache(folder, sae, cache) if "cache" in needs else None,
        _model(folder, sae.origin.model, model, load) if "model" in needs else None,
    )
    _check(opened)
    return opened


def open_all(
    paths: Sequence[Path | str],
    model: Any = None,
    cache: Any = None,
    *,
    needs: Sequence[str] = ("model", "cache"),
    device: str = "cpu",
) -> list[Opened]:
    """Several runs, each model of which is loaded once; see `open`."""
    from saelab import models

    load = functools.cache(functools.partial(models.load, device=device))
    return [open(path, model, cache, needs=needs, load=load) for path in paths]


def _cache(folder: RunFolder, sae: Any, named: Any) -> Any:
    from saelab.activations import Cache

    origin: Origin = sae.origin
    cache = named if isinstance(named, Cache) else Cache(named or _recorded(folder, origin))
    if named is None and origin.cache_hash not in (None, sha256(cache.path / "manifest.json")):
        raise UsageError(
            f"{cache.path} is not the cache that {folder.path} was trained on, its manifest "
            "differs: name it with --cache to read it nevertheless"
        )
    if origin.model and (field := origin.model.differs(cache.identity)):
        raise UsageError(
            f"{cache.path} was made by {cache.identity.name}, not by {origin.model.name}, the "
            f"model of {folder.path}: they differ in {field}; name a cache of that model with "
            "--cache"
        )
    if cache.width(origin.hook) != sae.d_model:
        raise UsageError(
            f"the SAE of {folder.path} has d_model={sae.d_model}, {origin.hook} of "
            f"{cache.path} {cache.width(origin.hook)}: name a cache of its model with --cache"
        )
    return cache


def _recorded(folder: RunFolder, origin: Origin) -> Path:
    """Where the record says the cache lies: seen from the run, else as it is written."""
    if not origin.cache:
        raise UsageError(f"{folder.path} does not say its cache: name it with --cache DIR")
    for place in (folder.path.resolve() / origin.cache, Path(origin.cache)):
        if place.is_dir():
            return place.resolve()
    raise UsageError(
        f"the cache of {folder.path} is not at {origin.cache} any more: --cache DIR says where "
        "it lies now"
    )


def _model(folder: RunFolder, record: Identity | None, named: Any, load: Callable | None) -> Any:
    from saelab import models

    load = load or models.load
    if named is not None:
        return load(named)
    if record is None or record.name == ARRAYS:
        raise UsageError(f"{folder.path} does not say its model: name it with --model")
    if Path(record.name).is_absolute() and not Path(record.name).is_dir():
        raise UsageError(
            f"the model of {folder.path} is not at {record.name} any more: --model DIR says "
            "where it lies now"
        )
    return load(record.name)


def _check(opened: Opened) -> None:
    """Raise UsageError if the model is another one than the SAE's or the cache's, or lacks a
    hook."""
    folder, sae, cache, model = opened
    if model is None:
        return
    from saelab import models

    records = {f"the SAE of {folder.path}": sae.origin.model}
    if cache is not None:
        records[str(cache.path)] = cache.identity
    told = False
    for what, record in records.items():
        if record is not None and record.name != ARRAYS and not told:
            told = models.check(model, record, what)
    for hook in dict.fromkeys(sae.origin.hooks):
        # A part of an activation, such as another SAE's error, is no hook of the model.
        models.resolve_hook(model, (cache and cache.whole(hook)) or hook)
    if cache is not None and not told:
        _check_activations(model, cache, sae.origin.hook)


def _check_activations(model: Any, cache: Any, hook: str) -> None:
    """Raise UsageError if a model whose weights cannot be told does not give what the cache
    holds."""
    from saelab.activations.stored import round_trip
    from saelab.models import running

    if cache.whole(hook):
        return
    chunk = next(cache.contexts(hook, "held_out"))
    computed_TD = running.read(model, chunk.tokens[:1], [hook])[hook].flatten(2)[0]
    # int8 loses more than that of a token with one huge dimension, and of the right model too.
    here_TD = round_trip(computed_TD, cache.plan.dtype)
    held_TD = chunk.acts[0]
    rms = held_TD.square().mean().sqrt().clamp_min(1e-20)  # of zeros
    error = float((here_TD - held_TD).square().mean().sqrt() / rms)
    if not error <= CLOSE:
        raise UsageError(
            f"this model's activations at {hook} differ from those in {cache.path} by {error:.0%} "
            "of their rms: it is another model, or its weights were changed in loading"
        )
