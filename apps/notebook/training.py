"""`saelab.train`: configurations as the command line has them, or one's own activations."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from saelab.door import beside

from .opened import Run, open


def train(what: Any, **options: Any) -> "Run | Path | list[Path]":
    """Train an SAE on one's own activations, and open the run; or train what a `Config`, or several
    in one pass, say, and return their folders (see `training.train`).

    what: a tensor, an array or a DataFrame [N, D], contexts [C, T, D], or batches of these such as
    a DataLoader. options: out, the run's folder (default: the first free one of runs/own,
    runs/own-2, ...), progress (default: a bar on stderr), and fields of `Config`; see
    `training.own.train_on`.

    >>> run = saelab.train(x_ND, k=16, features=1024)
    >>> run.evaluate()
    """
    configs = what if isinstance(what, Sequence) and not isinstance(what, str) else [what]
    if configs and isinstance(configs[0], beside("training.config").Config):
        return beside("training.loop").train(what, **options)
    train_on = beside("training.own").train_on
    if "progress" in options:
        return open(train_on(what, **options))
    with tqdm(unit=" steps", leave=False) as bar:
        return open(train_on(what, **options, progress=partial(_shown, bar)))


def _shown(bar: tqdm, step: int, n_steps: int, _: Any) -> None:
    bar.total = n_steps
    bar.update(step - bar.n)
