"""A pass without a cache: a model runs over a text while the runs train, and a small cache of the
text's beginning is kept in each run's folder, by which every later verb works."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from saelab import files, joint, models
from saelab.activations import Cache
from saelab.activations.from_text import FromText, from_text
from saelab.activations.live import Live
from saelab.activations.manifest import written
from saelab.activations.plan import Plan
from saelab.activations.text import Text
from saelab.device import quick_dtype
from saelab.errors import UsageError
from saelab.runs import RunFolder

from . import folder as folder_
from .config import Config
from .windows import Passed

ENDLESS = 2**60  # positions: as many as the text has
KEPT_DTYPES = {"float32": "float16"}  # others are kept as they are

Progress = Callable[[int], object]


def begin(
    configs: Sequence[Config], resume: bool, keeping: Progress | None = None
) -> tuple[Cache, Live]:
    """The cache that the runs of a pass keep, written if it is not there, and what they train on.

    keeping(positions so far) is called while it is written. Raises UsageError for a model, text or
    hook that does not exist, a text too short for what is to be kept, and a folder that holds
    anything but these runs.
    """
    folders = [Path(config.out) for config in configs]
    folder_.check_places(configs, resume)
    source = _source(configs, RunFolder(folders[0]).cache)
    config, dtype = configs[0], source.plan.dtype
    least = 2 * source.plan.context
    if config.keep < least:
        raise UsageError(
            f"keep={config.keep} is less than two contexts of {source.plan.context}, one for each "
            f"split: --keep {least} or more"
        )
    plan = replace(source.plan, n_tokens=config.keep, dtype=KEPT_DTYPES.get(dtype, dtype))
    kept = FromText(source.model, replace(plan, shard_contexts=0), source.reading)
    cache = Cache.write(RunFolder(folders[0]).cache, kept, keeping)
    if cache.n_tokens() < config.batch:
        raise UsageError(
            f"keep={config.keep} gives {cache.n_tokens()} training tokens, less than one batch of "
            f"{config.batch}: give another --out and a larger --keep"
        )
    for folder in folders[1:]:
        _share(cache.path, RunFolder(folder).cache)
    return cache, Live(source, config.ring, config.place, Passed(folders))


def _share(kept: Path, other: Path) -> None:
    """Second names for the files of the kept cache in another run's folder, or copies where there
    are no second names; its manifest last, without which the folder is no cache."""
    for path in sorted(kept.iterdir(), key=lambda path: path.name == "manifest.json"):
        if not files.is_trace(path.name) and not (other / path.name).exists():
            files.write_atomic(other / path.name, partial(_link, path))


def _link(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:
        shutil.copy2(path, other)


def _source(configs: Sequence[Config], kept: Path) -> FromText:
    """The whole text at every hook that a run asks for, and that a cache kept earlier has."""
    config = configs[0]
    text = Text(config.text, config.text_field)
    _ = text.split  # raises for a text that there is not, before the model is read
    gradients = any(getattr(one.form, "beta", 0) for one in configs)
    held = written(kept) if (kept / "manifest.json").is_file() else None
    dtype = config.model_dtype or ("float32" if gradients else quick_dtype(config.place))
    if held and config.model_dtype is None:  # as the run was begun, on whatever device
        dtype = Plan.read(held).model_dtype
    model = models.load(config.model, config.place, dtype=dtype)
    named = [name for one in configs for name in (one.hook, one.target) if name]
    asked = [part for name in named for part in joint.parts(name)]
    return from_text(
        model,
        text,
        [*(held["hooks"] if held else ()), *asked],
        ENDLESS,
        context=config.context,
        gradients=gradients,
        dtype=dtype,
    )
