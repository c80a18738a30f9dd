"""Train a sparse autoencoder on a cache of activations."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from apps.cli.common import Count, document, show
from training import recipes
from training.config import Config


@dataclass(frozen=True)
class Args(Config):
    """Options of `saelab train`; a recipe, a YAML file with any of these fields, may come first and give the defaults."""

    tokens: Count = Config.tokens
    """training tokens, such as 2000000, 500k or 2M; more than the cache holds means further epochs in another order"""
    resume: bool = False
    """go on from the newest checkpoint of the run folder"""
    json: bool = False
    """print the result as JSON on stdout"""

    def config(self) -> Config:
        """The run's configuration alone."""
        return Config(**{f.name: getattr(self, f.name) for f in fields(Config)})


def default(argv: list[str]) -> Args:
    """The recipe's values if the first argument names one (it is then removed from argv), else the defaults."""
    if argv and not argv[0].startswith("-"):
        return Args(**vars(recipes.read(argv.pop(0))))
    return Args()


def train_showing_progress(configs: Sequence[Config], resume: bool = False) -> list[Path]:
    """Train with a progress bar on stderr; print each run's last numbers to stderr; the run folders."""
    from tqdm import tqdm

    from training.loop import train

    n_steps = configs[0].n_steps
    with tqdm(total=n_steps, unit="step", file=sys.stderr, disable=None) as bar:

        def progress(step: int, n_steps: int, done: list) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(fvu=f"{done[0].fvu:.3f}", l0=f"{done[0].l0:.1f}", dead=f"{done[0].dead:.1%}", refresh=False)

        return train(configs, resume=resume, progress=progress)  # type: ignore[return-value]


def run(args: Args) -> int:
    """Train one run; print where it lies and its last numbers."""
    config = args.config()
    config.check()
    (folder,) = train_showing_progress([config], args.resume)
    last, text = summary(folder)
    show(document("train", args.seed, run=str(folder), **last), args.json, f"{text}\nnext: saelab eval {folder}")
    return 0


def summary(folder: Path) -> tuple[dict, str]:
    """The last row of a run's metrics.jsonl, and a line for people."""
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    numbers = f"FVU {last['fvu']:.3f}, L0 {last['l0']:.1f}, dead {last['dead']:.1%}"
    return last, f"{folder}: {numbers} after {last['tokens']:,} training tokens"
