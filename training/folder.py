"""The folder of a run in training: who may write it, whether it holds this very run, and at which
step that goes on."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saelab import files, ranks
from saelab.activations import Cache
from saelab.activations.manifest import contents
from saelab.errors import UsageError
from saelab.locks import only_writer
from saelab.runs import RunFolder, read

from . import checkpoint
from . import config as configs_
from . import start as start_
from .config import Config

SCHEMA = "saelab/training/1"


@contextlib.contextmanager
def opened(
    configs: Sequence[Config], cache: Cache, resume: bool, extend: bool
) -> Iterator[tuple[list[Path], int, Callable[[], None]]]:
    """Within the block this process alone writes the run folders of a pass; yields them, the step
    to go on from, and a function: if the block fails before it is called, what it made is removed.
    Of several ranks the first one does so for all.

    Raises UsageError for a folder that another process writes, or that holds anything but this run.
    """
    folders = [Path(config.out) for config in configs]
    with contextlib.ExitStack() as stack:
        keeps: list[Callable[[], None]] = []

        def enter() -> int:
            for folder in folders:
                stack.enter_context(only_writer(folder))
            for config, folder in zip(configs, folders, strict=True):
                _check(config, folder, cache, resume, extend)
            first = checkpoint.newest_of_all([RunFolder(folder).checkpoints for folder in folders])
            for config in configs:
                _check_length(config, first)
            keeps.append(stack.enter_context(files.undone(*folders)))
            for config, folder in zip(configs, folders, strict=True):
                _write(config, folder, cache, first)
            return first

        first = ranks.at_first(enter)

        def keep() -> None:
            for each in keeps:
                each()

        yield folders, first, keep


def lengths(folder: Path) -> list[dict[str, int]]:
    """Which `tokens` the run was to have from which step on: one entry, unless it was made longer
    or shorter in resuming."""
    return read(RunFolder(folder).training).get("lengths", [])


def start(folder: Path) -> int:
    """The seed of the run's initial weights; of runs of before it was recorded the run's own."""
    held = read(RunFolder(folder).training)
    return held["start"] if "start" in held else configs_.read(RunFolder(folder).config).seed


def _check(config: Config, folder: Path, cache: Cache, resume: bool, extend: bool) -> None:
    """Raise UsageError if the folder holds anything but this run."""
    mine = RunFolder(folder)
    if resume and mine.config.exists():
        held = configs_.read(mine.config)
        if extend:
            held = replace(held, tokens=config.tokens)
        if differing := _resolved(config, cache).differing(_resolved(held, cache)):
            raise UsageError(
                f"{folder} holds a run of another configuration (asked / held): {differing}"
            )
        _check_data(folder, cache)
    else:
        refuse_occupied(folder, keeps_cache(config))


def check_places(configs: Sequence[Config], resume: bool) -> None:
    """Raise UsageError for a folder that holds something else than what may be resumed, before the
    work that comes ahead of a run without a cache."""
    for config in configs:
        if not (resume and RunFolder(config.out).config.exists()):
            refuse_occupied(Path(config.out), keeps_cache(config))


def keeps_cache(config: Config) -> bool:
    """Whether the run's cache lies in its own folder: of a live run, and of one's own
    activations."""
    inside = RunFolder(config.out).cache
    return config.live or Path(config.cache).resolve() == inside.resolve()


def refuse_occupied(folder: Path, keeps: bool = False) -> None:
    """Raise UsageError for a folder that holds more than the traces of a killed start; of a run
    that keeps a cache that cache is such a trace."""
    paths = folder.iterdir() if folder.is_dir() else ()
    kept = RunFolder(folder).cache if keeps else None
    if held := [path for path in paths if path != kept and not _of_a_killed_start(path)]:
        what = "another run" if RunFolder(folder).config in held else "other files"
        raise UsageError(
            f"{folder} already holds {what}: choose another --out, or --resume to go on with it"
        )


def _resolved(config: Config, cache: Cache) -> Config:
    """The config with its hook spelt as the cache does: several names, and none, may say one."""
    if config.hook is None and len(cache.hooks) > 1:
        return config
    return replace(config, hook=cache.resolve(config.hook or cache.hooks[0]))


def _check_data(folder: Path, cache: Cache) -> None:
    """Raise UsageError if the run was begun on other activations, wherever they lay. Runs of before
    this was recorded go on."""
    here = contents(cache.manifest)
    if read(RunFolder(folder).training).get("data", here) != here:
        raise UsageError(
            f"{folder} was begun on other activations than {cache.path} now holds: resume it with "
            "the cache that it was begun on, or choose another --out"
        )


def _of_a_killed_start(path: Path) -> bool:
    """Whether a file is what a training leaves that is killed before its configuration is
    written."""
    return files.is_trace(path.name) or path == RunFolder(path.parent).training


def _check_length(config: Config, first: int) -> None:
    """Raise UsageError where a run that is to go on at step `first` has no such step."""
    if first > config.n_steps:
        raise UsageError(
            f"{config.out} has done {first} steps, tokens={config.tokens} are {config.n_steps}: "
            f"--tokens {first * config.batch} or more"
        )
    if not first or not config.mutual:
        return
    held = configs_.read(RunFolder(config.out).config)
    before, after = (round(each.mutual * each.n_steps) for each in (held, config))
    if (first > before) != (first > after):
        raise UsageError(
            f"mutual={config.mutual} of tokens={config.tokens} ends at step {after}, of "
            f"{held.tokens} at {before}: at step {first} the run cannot take the other length"
        )


def _write(config: Config, folder: Path, cache: Cache, first: int) -> None:
    """Write what the run is, its configuration last, and remove what killed writers left."""
    mine = RunFolder(folder)
    record: dict[str, Any] = {"schema": SCHEMA, "data": contents(cache.manifest)}
    record["start"] = start(folder) if first else start_.seed_of(config)
    earlier = [entry for entry in lengths(folder) if entry["from_step"] < first]
    if first and not earlier:  # begun before lengths were recorded
        earlier = [{"from_step": 0, "tokens": configs_.read(mine.config).tokens}]
    if not earlier or earlier[-1]["tokens"] != config.tokens:
        earlier.append({"from_step": first, "tokens": config.tokens})
    files.write_json(mine.training, {**record, "lengths": earlier})
    configs_.write(config, mine.config)
    for place in (folder, mine.checkpoints, mine.sae):
        if place.is_dir():
            files.sweep(place)
    checkpoint.drop_after(mine.checkpoints, first)
    checkpoint.prune(mine.checkpoints, config.checkpoint_every, config.n_steps)
