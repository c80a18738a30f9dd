"""Train a sparse autoencoder on a cache of activations."""

import sys
from dataclasses import dataclass, fields

from apps.cli.common import document, show
from training.config import Config, read


@dataclass(frozen=True)
class Args(Config):
    """Options of `saelab train`; a recipe, a YAML file with any of these fields, may come first and give the defaults."""

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
        return Args(**vars(read(argv.pop(0))))
    return Args()


def run(args: Args) -> int:
    """Train, drawing a progress bar on stderr; print where the run lies and its last numbers."""
    from tqdm import tqdm

    from training.loop import train

    config = args.config()
    with tqdm(total=config.n_steps, unit="step", file=sys.stderr, disable=None) as bar:

        def progress(step: int, n_steps: int, done: list) -> None:
            bar.update(step - bar.n)
            bar.set_postfix(fvu=f"{done[0].fvu:.3f}", l0=f"{done[0].l0:.1f}", dead=f"{done[0].dead:.1%}", refresh=False)

        folder = train(config, resume=args.resume, progress=progress)
    result = document("train", args.seed, run=str(folder), **last_row(folder))
    show(result, args.json, f"{folder}: FVU {result['fvu']:.3f}, L0 {result['l0']:.1f}, dead {result['dead']:.1%} "
         f"after {result['tokens']:,} tokens\nnext: saelab eval {folder}")  # fmt: skip
    return 0


def last_row(folder) -> dict:
    """The last row of the run's metrics.jsonl."""
    import json

    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
