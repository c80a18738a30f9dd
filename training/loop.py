"""The training loop: one pass over a cache's batches feeds any number of runs."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from saelab.activations import Cache
from saelab.digests import sha256
from saelab.errors import FailedRun, UsageError
from saelab.files import undone
from saelab.origin import Origin
from saelab.runs import RunFolder

from . import checkpoint
from . import config as configs_
from .checks import check
from .config import Config
from .record import Record
from .run import Run, Step

SAMPLE_TOKENS = 100_000  # for scale, variance and geometric median

Progress = Callable[[int, int, list[Step]], None]


def train(
    configs: Config | Sequence[Config], *, resume: bool = False, progress: Progress | None = None
) -> Path | list[Path]:
    """Train one SAE per config in a single pass over their common cache; returns the run folder, or
    a list of them.

    resume: go on from the newest checkpoint of each run folder; the result equals an uninterrupted
    run's, bit for bit on a CPU. progress(step, n_steps, what each run measured) is called after
    every step. Raises UsageError for configs that cannot share a pass, an occupied run folder, or a
    checkpoint of another configuration.

    >>> folder = train(Config(cache="caches/a", out="runs/a", k=32))
    >>> sae = SAE.load(folder)
    """
    several = [configs] if isinstance(configs, Config) else list(configs)
    cache = _common_cache(several)
    hooks = [_hooks(config, cache) for config in several]
    gradients = [
        _gradient(config, cache, pair[1]) for config, pair in zip(several, hooks, strict=True)
    ]
    folders = [_free_folder(config, resume) for config in several]
    with undone(*folders) as keep:
        for config, folder in zip(several, folders, strict=True):
            configs_.write(config, RunFolder(folder).config)
        batch, seed = several[0].batch, several[0].order_seed
        names = sorted({name for pair in hooks for name in pair})
        sample = _sample(cache, names, batch, seed)
        runs = [Run(c, sample[a], sample[b]) for c, (a, b) in zip(several, hooks, strict=True)]
        first = _restore(runs, folders) if resume else 0
        records = [
            Record(folder, config, first) for folder, config in zip(folders, several, strict=True)
        ]
        stream = cache.batches(
            [*names, *sorted({name for name in gradients if name})], batch, seed, start=first
        )
        started = time.perf_counter()
        try:
            for number in range(first, several[0].n_steps):
                x = next(stream)
                step_results = [
                    run.step(x[a], x[b], x[g] if g else None)
                    for run, (a, b), g in zip(runs, hooks, gradients, strict=True)
                ]
                keep()
                rate = (number + 1 - first) * batch / (time.perf_counter() - started)
                _record(runs, records, step_results, round(rate))
                _checkpoint(runs, folders)
                if progress:
                    progress(number + 1, several[0].n_steps, step_results)
        except FloatingPointError as error:
            raise FailedRun(f"{error}; the last good checkpoint is kept") from None
        finally:
            for record in records:
                record.close()
        for run, folder, pair in zip(runs, folders, hooks, strict=True):
            _finish(run, folder, cache, pair)
    return folders[0] if isinstance(configs, Config) else folders


def _common_cache(configs: list[Config]) -> Cache:
    """The cache that all configs name. Raises UsageError if they differ in what a pass
    has only one of."""
    if not configs:
        raise UsageError("no runs to train")
    for config in configs:
        check(config)
        for name in ("cache", "batch", "tokens", "order_seed"):
            mine, theirs = getattr(config, name), getattr(configs[0], name)
            if mine != theirs:
                raise UsageError(
                    f"runs of one pass must share {name}: {theirs!r} and {mine!r} differ"
                )
    if len({config.out for config in configs}) < len(configs):
        raise UsageError("runs of one pass need run folders of their own")
    cache, size = Cache(configs[0].cache), configs[0].batch
    if size > cache.n_tokens():
        raise UsageError(
            f"batch={size} is more than the {cache.n_tokens()} training tokens of {cache.path}: "
            f"give at most --batch {cache.n_tokens()}"
        )
    return cache


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


def _free_folder(config: Config, resume: bool) -> Path:
    """The run folder, which is free or holds this very run. Raises UsageError otherwise."""
    folder = Path(config.out)
    existing = RunFolder(folder).config
    if resume and existing.exists():
        differing = config.differing(configs_.read(existing))
        if differing:
            raise UsageError(
                f"{folder} holds a run of another configuration (asked / held): {differing}"
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "another run" if existing.exists() else "other files"
        raise UsageError(
            f"{folder} already holds {what}: choose another --out, or --resume to go on with it"
        )
    return folder


def _sample(cache: Cache, names: list[str], batch: int, seed: int) -> dict[str, torch.Tensor]:
    """The first SAMPLE_TOKENS tokens of the shuffled stream, per hook."""
    stream = cache.batches(names, batch, seed)
    pieces = [next(stream) for _ in range(max(1, min(SAMPLE_TOKENS, cache.n_tokens()) // batch))]
    return {name: torch.cat([piece[name] for piece in pieces]) for name in names}


def _restore(runs: list[Run], folders: list[Path]) -> int:
    """Load the newest checkpoints; the step they agree on."""
    for run, folder in zip(runs, folders, strict=True):
        tensors = checkpoint.newest(RunFolder(folder).checkpoints)
        if tensors is not None:
            run.load_state(tensors)
    n_done = {run.n_done for run in runs}
    if len(n_done) > 1:
        raise FailedRun(
            f"the runs' checkpoints are of different steps: {sorted(n_done)}; resume each by itself"
        )
    return n_done.pop()


def _record(runs: list[Run], records: list[Record], step_results: list[Step], rate: int) -> None:
    for run, record, step in zip(runs, records, step_results, strict=True):
        if run.n_done % run.config.log_every == 0 or run.n_done in (1, run.config.n_steps):
            record.row(
                step=run.n_done,
                tokens=run.n_done * run.config.batch,
                **step.row(),
                tokens_per_second=rate,
            )


def _checkpoint(runs: list[Run], folders: list[Path]) -> None:
    for run, folder in zip(runs, folders, strict=True):
        if run.n_done % run.config.checkpoint_every == 0 or run.n_done == run.config.n_steps:
            checkpoint.save(RunFolder(folder).checkpoints, run.n_done, run.state())


def _finish(run: Run, folder: Path, cache: Cache, hooks: tuple[str, str]) -> None:
    """Write the inference form, on raw activations, to sae/. The run's own weights stay as they
    are."""
    config, final = run.config, run.final()
    batches = cache.batches(hooks[0], config.batch, config.order_seed + 1)
    final.calibrate(
        batches, min(config.calibration, batches.per_epoch * config.batch), share=run.budget_F
    )
    final = final.frozen()
    final.origin = Origin(
        *hooks,
        model=cache.identity,
        cache=os.path.relpath(cache.path.resolve(), folder.resolve()),
        cache_hash=sha256(cache.path / "manifest.json"),
        seed=config.seed,
        tokens=config.tokens,
        sparsify=config.sparsify,
        k=config.k,
    )
    final.save(RunFolder(folder).sae, run.probe)
