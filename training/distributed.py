"""Which layout the ranks of a job give a run, and what they cannot share."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from saelab import ranks
from saelab.errors import UsageError
from saelab.sparsify import Choice, Own

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
        for problem in problems(config, ranks.world()):
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


def step_bytes(config: Config, d_model: int, n_ranks: int) -> dict[str, int]:
    """Bytes that each rank sends in a step of a token budget or a threshold with the plain loss in
    float32, by what they are, as `collectives.sent` counts them; without AuxK, which adds scores,
    counts and one more reconstruction where features are dead.

    >>> step_bytes(Config(features=65_536, k=64, batch=8192), d_model=2304, n_ranks=8)
    {'scores': 3670016, 'counts': 28672, 'reconstructions': 132120576, ...}
    """
    n_tokens, n_features, most = config.batch, config.features, -(-config.features // n_ranks)
    others = n_ranks - 1

    def added_up(n_numbers: int, width: int = 4) -> int:
        return 2 * n_numbers * width * others // n_ranks

    if name(config) == "replicated":
        parameters = added_up(n_features * d_model) * 2 + added_up(n_features) + added_up(d_model)
        return {"means": added_up(1), "gradients": parameters, "fired": added_up(n_features, 8)}
    merged = {}
    if isinstance(config.form, Choice) and config.form.over == "token":
        scores = 8 * n_tokens * config.k * others // n_ranks
        merged = {"scores": scores, "counts": 4 * n_tokens * others // n_ranks}
    sums = {"reconstructions": added_up(n_tokens * d_model), "gradients": added_up(d_model)}
    return {**merged, **sums, "fired": 4 * most * others}


def problems(config: Config, n: int) -> Iterator[str]:
    """Why n ranks cannot share a run, and what would be right."""
    form, layout, n_features = config.form, name(config), config.features
    if config.clt:
        yield f"clt has one process, here are {n} ranks: start it without torchrun"
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
        if isinstance(form, Own):
            yield f"{config.sparsify} needs all features in one place: --layout replicated"
        if config.loss in BY_VALUE:
            yield (
                f"loss={config.loss} needs all values of a token in one place: --layout replicated"
            )
    elif isinstance(form, Choice) and form.over == "feature":
        yield f"{config.sparsify} needs all tokens of a feature in one place: --layout sharded"
