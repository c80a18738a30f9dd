"""The one way to get a run's SAE together with the cache and the model that it belongs to; light
to import."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from saelab import joint
from saelab.device import chosen
from saelab.digests import sha256
from saelab.errors import UsageError
from saelab.files import near
from saelab.origin import ARRAYS, SYNTHETIC, Identity, Origin
from saelab.runs import RunFolder, read

IF_ANY = ("model if any", "cache")  # what of `needs` a run on arrays from elsewhere has too
CLOSE = 0.02  # of the activations' rms, by which float16 and bfloat16 caches are rounded


class Opened(NamedTuple):
    """An SAE with what it belongs to, checked against its record."""

    folder: RunFolder
    sae: Any
    """a `saelab.SAE`"""
    cache: Any
    """a `saelab.activations.Cache`; None if it was not asked for"""
    model: Any
    """what `saelab.models.load` returns, or the one given; None if it was not asked for, or there
    is none"""


def open(
    path: Path | str,
    model: Any = None,
    cache: Any = None,
    *,
    needs: Sequence[str] = ("model", "cache"),
    device: str = "cpu",
    dtype: str | None = None,
    load: Callable[..., Any] | None = None,
    any_kind: bool = False,
) -> Opened:
    """The SAE of a run with its model and cache, which are those of its record or are refused.

    model: a name, a folder or a model in memory, where it is not (or not any more) what the
    record names; cache: a folder or a `Cache`, likewise. needs: which of the two are wanted;
    IF_ANY: both, but no model of a run on arrays from elsewhere, whose record names none.
    device: where the SAE and a model that is loaded go. dtype: of such a model (default: that of
    the model that filled the cache; float32 without one). load: what loads it (default:
    `models.load`). any_kind: whether it may be a cross-layer transcoder, which else is refused.

    Raises UsageError for a folder without an SAE, for a model or cache that is gone, for
    another one (naming the field that differs), and for a hook that either lacks.

        _, sae, cache, model = saelab.open("runs/demo", model="models/where/it/lies/now")
    """
    from saelab import formats, models

    folder = RunFolder(path)
    sae = (formats.load_any if any_kind else formats.load)(folder.path).to(chosen(device))
    wants_model = "model" in needs
    if "model if any" in needs:
        wants_model = model is not None or _made_by(sae) != ARRAYS
    if _made_by(sae) == SYNTHETIC and wants_model:
        raise UsageError(
            f"{folder.path} is of a synthetic world, not of a model: use "
            "saelab.evaluation.ground_truth.measure"
        )
    cache = _cache(folder, sae, cache) if "cache" in needs else None
    if wants_model:
        dtype = dtype or (cache.plan.model_dtype if cache else "float32")
        found = functools.partial(load or models.load, device=device, dtype=dtype)
        model = found(_named(folder, sae.origin.model, model))
    opened = Opened(folder, sae, cache, model if wants_model else None)
    _check(opened)
    return opened


def _made_by(sae: Any) -> str:
    """The name that the record has for what made the activations."""
    return sae.origin.model.name if sae.origin.model else ""


def open_all(
    paths: Sequence[Path | str],
    model: Any = None,
    cache: Any = None,
    *,
    needs: Sequence[str] = ("model", "cache"),
    device: str = "cpu",
    dtype: str | None = None,
    any_kind: bool = False,
) -> list[Opened]:
    """Several runs, each model of which is loaded once; see `open`."""
    from saelab import models

    options: dict[str, Any] = {"needs": needs, "device": device, "dtype": dtype}
    options["any_kind"] = any_kind
    load = functools.cache(models.load)
    return [open(path, model, cache, **options, load=load) for path in paths]


def told(path: Path | str, any_kind: bool = False) -> Any:
    """The SAE (or, of `any_kind`, the cross-layer transcoder) of a run with all that the run knows
    of it, for others: how the contexts it was trained on are made, from its cache where its own
    record is older than that, and its measured L0.

    formats.save(told("runs/demo"), "for-saelens", "saelens")
    """
    from saelab import formats

    folder = RunFolder(path)
    sae = formats.load_any(folder.path) if any_kind else formats.load(folder.path)
    report = read(folder.report)
    measured = (report.get("l0") or {}).get("value") if _is_of(report, folder) else None
    l0 = {} if measured is None else {"l0": measured}
    more = {**_habits(folder, sae.origin), **l0, **sae.origin.more}
    sae.origin = replace(sae.origin, more=more)
    return sae


def _is_of(report: Mapping[str, Any], folder: RunFolder) -> bool:
    return bool(report) and report.get("sae") == folder.sae_digest()


def _habits(folder: RunFolder, origin: Origin) -> dict[str, Any]:
    """Those of the cache that it was trained on, if that is still there; the cache that an imported
    run got says nothing of its training."""
    from saelab.activations import Cache

    if origin.source or not origin.cache:
        return {}
    try:
        cache = Cache(_recorded(folder, origin))
    except UsageError:
        return {}
    unchanged = origin.cache_hash in (None, sha256(cache.path / "manifest.json"))
    return cache.plan.habits if unchanged else {}


def _cache(folder: RunFolder, sae: Any, named: Any) -> Any:
    from saelab.activations import Cache

    origin: Origin = sae.origin
    if not origin.hook:
        raise UsageError(
            f"{folder.path} does not say which hook point its SAE reads: "
            f"`{folder.how_to_capture()}` makes a cache there, which it then knows"
        )
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
    """Where the record says the cache lies, seen from the run."""
    if not origin.cache:
        raise UsageError(
            f"{folder.path} has no cache: `{folder.how_to_capture()}` makes one that it then "
            "knows, --cache DIR names one that there is"
        )
    place = folder.path.resolve() / origin.cache
    if place.is_dir():
        return near(place.resolve())
    raise UsageError(
        f"the cache of {folder.path} is not at {origin.cache} any more: --cache DIR says where "
        "it lies now"
    )


def _named(folder: RunFolder, record: Identity | None, named: Any) -> Any:
    """The name of a run's model, or the model in memory that is given."""
    if named is not None:
        return named
    if record is not None and record.name == ARRAYS:
        raise UsageError(
            f"{folder.path} is on activations that were given: `eval`, `index` and `browse` work "
            "on it without a model, this needs the one that made them: name it with --model"
        )
    if record is None:
        raise UsageError(f"{folder.path} does not say its model: name it with --model")
    if Path(record.name).is_absolute() and not Path(record.name).is_dir():
        raise UsageError(
            f"the model of {folder.path} is not at {record.name} any more: --model DIR says "
            "where it lies now"
        )
    return record.name


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
    for hook in dict.fromkeys(part for name in sae.origin.hooks for part in joint.parts(name)):
        # A part of an activation, such as another SAE's error, is no hook of the model.
        models.resolve_hook(model, (cache and cache.whole(hook)) or hook)
    if cache is not None and not told:
        for hook in joint.parts(sae.origin.hook):
            _check_activations(model, cache, hook)


def _check_activations(model: Any, cache: Any, hook: str) -> None:
    """Raise UsageError if a model whose weights cannot be told does not give what the cache
    holds."""
    from saelab.activations.stored import round_trip
    from saelab.models import running

    if cache.whole(hook):
        return
    chunk = next(cache.contexts(hook, "held_out"))
    computed_TD = running.read(model, chunk.tokens[:1], [hook])[hook].flatten(2)[0].float().cpu()
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
