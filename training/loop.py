"""The training loop: one pass over a cache's batches feeds any number of runs."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from saelab import ranks
from saelab.activations import Cache
from saelab.activations.manifest import contents
from saelab.digests import sha256
from saelab.errors import FailedRun, UsageError
from saelab.origin import Origin
from saelab.runs import RunFolder
from saelab.sparsify import Own

from . import checkpoint, dictionaries, distributed, live, start
from . import folder as folder_
from .checks import ONE_PASS, check
from .config import Config
from .interruption import deferred
from .record import Record
from .run import Run
from .step import Step

SAMPLE_TOKENS = 100_000  # for scale, variance and geometric median

Progress = Callable[[int, int, list[Step]], None]


def train(
    configs: Config | Sequence[Config],
    *,
    resume: bool = False,
    extend: bool = False,
    progress: Progress | None = None,
    keeping: Callable[[int], object] | None = None,
) -> Path | list[Path]:
    """Train one SAE per config in a single pass over their common cache; returns the run folder, or
    a list of them.

    resume: go on from the newest checkpoint that all run folders hold; the result equals an
    uninterrupted run's, bit for bit on a CPU. extend: with resume, `tokens` may differ from those
    that the run was begun with: it goes on under the schedule of the new length, which is not what
    a run of that length from the start would be, and is recorded. progress(step, n_steps, what
    each run measured) is called after every step, keeping(positions) while the cache is written
    that runs without one keep. Raises UsageError for configs that cannot share a pass, a run folder
    that is occupied or that another process writes, a checkpoint of another configuration or other
    activations; KeyboardInterrupt for Ctrl-C and SIGTERM, once the step is done and its checkpoint
    written.

    Started by torchrun, all ranks train the runs together (see `training.distributed`).

    >>> folder = train(Config(cache="caches/a", out="runs/a", k=32))
    >>> sae = SAE.load(folder)
    """
    several = [configs] if isinstance(configs, Config) else list(configs)
    with ranks.joined():
        folders = _train(several, resume, extend, progress, keeping)
    return folders[0] if isinstance(configs, Config) else folders


def _train(
    several: list[Config],
    resume: bool,
    extend: bool,
    progress: Progress | None,
    keeping: Callable[[int], object] | None,
) -> list[Path]:
    """`train` with its ranks joined."""
    _check_alike(several)
    distributed.check(several, resume)
    cache, source = live.begin(several, resume, keeping) if several[0].live else _cache(several)
    ranks.check_alike("what to train on", {"the activations' SHA-256": contents(cache.manifest)})
    hooks = [_hooks(config, cache) for config in several]
    if any(config.dictionary for config in several):
        return dictionaries.fit_all(several, cache, [pair[0] for pair in hooks], resume)
    gradients = [
        _gradient(config, cache, pair[1]) for config, pair in zip(several, hooks, strict=True)
    ]
    names = sorted({name for pair in hooks for name in pair})
    arrays = [*names, *sorted({name for name in gradients if name})]
    shuffled = partial(source.batches, size=several[0].batch, seed=several[0].order_seed)
    with folder_.opened(several, cache, resume, extend) as (folders, first, keep):
        sample = _sample(shuffled(names), several[0].batch, cache.n_tokens())
        runs = [
            Run(config, sample[a], sample[b], (cache.widths(a), cache.widths(b)))
            for config, (a, b) in zip(several, hooks, strict=True)
        ]
        if first:
            for run, folder in zip(runs, folders, strict=True):
                place = RunFolder(folder).checkpoints
                run.load_state(checkpoint.load(place, first, run.layout.part))
        with (
            _records(folders, several, first) as records,
            deferred() as interrupted,
            shuffled(arrays, start=first, device=several[0].place) as stream,
        ):
            for number in range(first, several[0].n_steps):
                x = next(stream)
                step_results = [
                    run.step(x[a], x[b], x[g] if g else None)
                    for run, (a, b), g in zip(runs, hooks, gradients, strict=True)
                ]
                keep()
                _record(runs, records, step_results)
                stop = ranks.any_of(interrupted())
                if stop or _due(several[0], number + 1):
                    _save(runs, records, folders)
                if progress:
                    progress(number + 1, several[0].n_steps, step_results)
                if stop:
                    raise KeyboardInterrupt(_stopped(number + 1, several[0].n_steps))
        for run, folder, pair in zip(runs, folders, hooks, strict=True):
            _finish(run, folder, cache, pair)
    return folders


def _check_alike(configs: list[Config]) -> None:
    """Raise UsageError if the runs differ in what a pass has only one of."""
    if not configs:
        raise UsageError("no runs to train")
    for config in configs:
        check(config)
        for name in ONE_PASS:
            mine, theirs = getattr(config, name), getattr(configs[0], name)
            if mine != theirs:
                raise UsageError(
                    f"runs of one pass must share {name}: {theirs!r} and {mine!r} differ"
                )
    if len({config.out for config in configs}) < len(configs):
        raise UsageError("runs of one pass need run folders of their own")


def _cache(configs: list[Config]) -> tuple[Cache, Cache]:
    """The cache that all configs name, which is what they train on as well."""
    cache, size = Cache(configs[0].cache), configs[0].batch
    if size > cache.n_tokens():
        raise UsageError(
            f"batch={size} is more than the {cache.n_tokens()} training tokens of {cache.path}: "
            f"give at most --batch {cache.n_tokens()}"
        )
    return cache, cache


def _hooks(config: Config, cache: Cache) -> tuple[str, str]:
    """Input and target hook of a run. Raises UsageError for one that the cache lacks."""
    if config.hook is None and len(cache.hooks) > 1:
        raise UsageError(f"{config.cache} holds {', '.join(cache.hooks)}: say which with --hook")
    name = cache.resolve(config.hook or cache.hooks[0])
    return name, cache.resolve(config.target) if config.target else name


def _gradient(config: Config, cache: Cache, target: str) -> str | None:
    """The array of gradients that a run's scores need, None if they need none. Raises UsageError if
    the cache lacks it."""
    if not getattr(config.form, "beta", 0):
        return None
    if not cache.manifest["settings"]["gradients"]:
        raise UsageError(
            f"{config.sparsify} scores pairs by the loss's gradient, which {config.cache} does "
            "not hold: make a cache with `saelab capture --gradients`"
        )
    return f"{target}.grad"


def _sample(batches: Any, batch: int, n_tokens: int) -> dict[str, torch.Tensor]:
    """The first SAMPLE_TOKENS tokens of the shuffled stream, per hook."""
    pieces = [next(batches) for _ in range(max(1, min(SAMPLE_TOKENS, n_tokens) // batch))]
    return {name: torch.cat([piece[name].cpu() for piece in pieces]) for name in pieces[0]}


@contextlib.contextmanager
def _records(folders: list[Path], configs: list[Config], first: int) -> Iterator[list[Record]]:
    """Where the runs' numbers go, closed at the end; of several ranks the first one writes
    them."""
    places = [] if ranks.rank() else folders
    records = [Record(*pair, first) for pair in zip(places, configs, strict=not ranks.rank())]
    try:
        yield records
    except FloatingPointError as error:
        raise FailedRun(f"{error}; the last good checkpoint is kept") from None
    finally:
        for record in records:
            record.close()


def _record(runs: list[Run], records: list[Record], step_results: list[Step]) -> None:
    for run, record, step in zip(runs, records, step_results, strict=not ranks.rank()):
        if run.n_done % run.config.log_every == 0 or run.n_done in (1, run.config.n_steps):
            record.row(step=run.n_done, tokens=run.n_done * run.config.batch, **step.row())


def _due(config: Config, step: int) -> bool:
    """Whether a checkpoint is to be written after that many steps."""
    return step % config.checkpoint_every == 0 or step == config.n_steps


def _stopped(step: int, n_steps: int) -> str:
    return (
        f"after step {step} of {n_steps}, its checkpoint is written: repeat the command, `train` "
        "with --resume, to go on"
    )


def _save(runs: list[Run], records: list[Record], folders: list[Path]) -> None:
    """Write a checkpoint of each run, and only then drop older ones: killed at any point, all still
    have one of the same step."""
    for record in records:
        record.sync()
    for run, folder in zip(runs, folders, strict=True):
        checkpoint.save(RunFolder(folder).checkpoints, run.n_done, run.state(), run.layout)
    for run, folder in () if ranks.rank() else zip(runs, folders, strict=True):
        due = run.config.checkpoint_every, run.config.n_steps
        checkpoint.prune(RunFolder(folder).checkpoints, *due)


def _finish(run: Run, folder: Path, cache: Cache, hooks: tuple[str, str]) -> None:
    """Write the inference form, on raw activations, to sae/. The run's own weights stay as they
    are. Of several ranks the first one does so, alone."""
    config, final = run.config, run.final()
    if final is None:
        return
    final = final.to(config.place)
    batches = cache.batches(hooks[0], config.batch, config.order_seed + 1)
    final.calibrate(
        batches, min(config.calibration, batches.per_epoch * config.batch), share=run.budget_F
    )
    final = final.frozen().to("cpu")
    changes = folder_.lengths(folder)[1:]
    final.origin = Origin(
        *hooks,
        model=cache.identity,
        cache=os.path.relpath(cache.path.resolve(), folder.resolve()),
        cache_hash=sha256(cache.path / "manifest.json"),
        seed=config.seed,
        start=folder_.start(folder),
        configuration=start.configuration(config),
        tokens=config.tokens,
        sparsify=config.sparsify,
        k=None if isinstance(config.form, Own) else config.k,
        more=cache.plan.habits | ({"lengths": folder_.lengths(folder)} if changes else {}),
    )
    final.save(RunFolder(folder).sae, run.probe)
