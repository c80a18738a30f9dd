"""Which layout the ranks of a job give a run, and what they cannot share."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from saelab import ranks
from saelab.errors import UsageError
from saelab.sparsify import Choice

from .config import Config
from .layout import ALONE, Layout
from .replicated import Replicated
from .sharded import Sharded

BY_VALUE = ("hierarchical", "multi-k")  # losses that order the values of a token


def check(configs: Sequence[Config], resume: bool) -> None:
    """Raise UsageError, with the numbers, for runs that the ranks of this job cannot share, or that
    are not the same on all of them."""
    if ranks.world() == 1:
        return
    fields: dict[str, Any] = {"the number of runs": len(configs), "resume": resume}
    for number, config in enumerate(configs, 1):
        of_run = f" of run {number}" * (len(configs) > 1)
        fields |= {f"{name}{of_run}": value for name, value in asdict(config).items()}
    ranks.check_alike("the configuration", fields)
    for config in configs:
        for problem in _problems(config, ranks.world()):
            raise UsageError(problem)


def of(config: Config) -> Layout:
    """The layout of a run on the ranks of this job."""
    if ranks.world() == 1:
        return ALONE
    return Sharded(config.features) if name(config) == "sharded" else Replicated()


def name(config: Config) -> str:
    """`sharded` or `replicated`. Where both will do: by what moves in a step, 8 B D bytes against
    16 F D, and as shards spare each rank the others' part of the update: shards below B = 3 F."""
    if config.layout != "auto":
        return config.layout
    form = config.form
    if isinstance(form, Choice) and form.over == "feature":
        return "sharded"
    if config.loss in BY_VALUE:
        return "replicated"
    return "sharded" if config.batch < 3 * config.features else "replicated"


def _problems(config: Config, n: int) -> Iterator[str]:
    form, layout, n_features = config.form, name(config), config.features
    if config.live:
        yield f"--live has one process, here are {n} ranks: make a cache with `saelab capture`"
    if config.batch % n:
        near = max(1, round(config.batch / n)) * n
        yield f"{n} ranks cannot share out a batch of {config.batch} tokens evenly: --batch {near}"
    if layout == "sharded":
        most = -(-n_features // n)
        if n_features <= (n - 1) * most:
            yield (
                f"{n_features} features in shards of {most} leave nothing for the last of {n} "
                f"ranks: --features {n * most}"
            )
        if config.loss in BY_VALUE:
            yield (
                f"loss={config.loss} needs all values of a token in one place: --layout replicated"
            )
    elif isinstance(form, Choice) and form.over == "feature":
        yield f"{config.sparsify} needs all tokens of a feature in one place: --layout sharded"
