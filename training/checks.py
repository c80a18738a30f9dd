"""What fields of a Config cannot go together, each as one sentence."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from saelab import device, joint, ranks
from saelab.errors import UsageError
from saelab.ranges import outside
from saelab.sparsify import Choice

from .config import Config

OF_LIVE = ("model", "model_dtype", "text", "text_field", "context", "ring", "keep")
# What runs that are trained together have only one of.
LAYER = re.compile(r"blocks\.(\d+)\.")
OF_TRAINING = ("live", "target", "clt", "sparsify", "loss", "normalise", "freeze", "encoder")
OF_TRAINING += ("revive", "lr")
ONE_PASS = (
    "cache",
    "live",
    *OF_LIVE,
    "batch",
    "tokens",
    "order_seed",
    "checkpoint_every",
)


def check(config: Config) -> None:
    """Raise UsageError, with the numbers, for fields that cannot go together.

    >>> check(Config(cache="a", out="b", k=64, features=32))
    UsageError: k=64 is more than features=32: choose k between 1 and 32
    """
    for problem in problems(config):
        raise UsageError(problem)
    device.chosen(config.device)


def problems(config: Config) -> Iterator[str]:
    """What is wrong, and what would be right, with the numbers. Raises UsageError for a sparsifier
    that does not exist."""
    yield from _of_data(config)
    if not config.out:
        yield "no run folder named: --out RUN"
    yield from outside(config)
    yield from _of_sizes(config)
    yield from _of_sparsifier(config)
    yield from _of_loss(config)
    yield from _of_adam(config)
    yield from _of_several_hooks(config)
    yield from _of_tokens_and_rows(config)
    yield from _of_dictionary(config)
    if config.skip and config.target is None:
        yield "skip needs a transcoder: name a --target"


def _of_dictionary(config: Config) -> Iterator[str]:
    """What belongs to training and not to a dictionary that is fitted at once."""
    if not config.dictionary:
        return
    for field in OF_TRAINING:
        if (value := getattr(config, field)) != getattr(Config, field):
            what = f"{field}={value} is for SAEs, and dictionary={config.dictionary} is none"
            yield f"{what}: leave it out"
    if ranks.world() > 1:
        what = f"dictionary={config.dictionary} is fitted by one process"
        yield f"{what}: start it without torchrun"


def _of_tokens_and_rows(config: Config) -> Iterator[str]:
    """What standardised tokens and new rows do not go with."""
    if config.normalise == "token" and config.target is not None:
        yield (
            "normalise=token gives a reconstruction its input's own mean and size, and a "
            "transcoder predicts another hook: leave it out"
        )
    if config.normalise == "token" and len(joint.parts(config.hook or "")) > 1:
        yield "normalise=token is for one hook: several side by side have a scale each"
    if config.revive and (config.clt or config.freeze == "decoder"):
        what = "a cross-layer transcoder" if config.clt else "freeze=decoder"
        yield f"revive gives features new decoder rows, and {what} has none to give: leave it out"


def _of_data(config: Config) -> Iterator[str]:
    """What the run trains on: a cache, or a model and a text."""
    if not config.live:
        if not config.cache:
            yield (
                "no cache named: --cache DIR (make one with `saelab capture`), or --live for none"
            )
        for name in OF_LIVE:
            if (value := getattr(config, name)) != getattr(Config, name):
                yield f"{name}={value} is for --live: a cache has its own"
        return
    if config.cache:
        yield f"cache={config.cache} and live exclude each other: give one of them"
    if config.hook is None:
        yield "no hook named: --hook NAME, for example --hook blocks.2.hook_resid_post"
    if config.ring < config.batch:
        yield f"ring={config.ring} is less than one batch: --ring {config.batch} or more"
    if config.keep < 2 * config.batch:
        yield (
            f"keep={config.keep} is less than two batches of {config.batch}: "
            f"--keep {2 * config.batch} or more"
        )


def _of_several_hooks(config: Config) -> Iterator[str]:
    """Hooks side by side, as one dictionary or as layers that write to later ones."""
    hooks, targets = joint.parts(config.hook or ""), joint.parts(config.target or "")
    form, name = config.form, config.sparsify
    if config.clt and config.crosscoder:
        yield "clt and crosscoder exclude each other: give one of them"
    if len(hooks) > 1 and config.target and not config.clt:
        yield "one dictionary from several hooks to others writes to earlier layers: give --clt"
    if len(hooks) > 1 and getattr(form, "beta", 0):
        yield f"{name} scores by the gradient at one hook, these are {len(hooks)}: give topk"
    if not config.clt:
        return
    if not config.target:
        yield "clt needs what its layers write to: --target 'blocks.*.hook_mlp_out'"
    elif len(hooks) != len(targets):
        yield f"clt has a target for each layer: {len(hooks)} hooks have {len(targets)} targets"
    yield from _of_order(hooks, targets)
    if not isinstance(form, Choice) or form.over == "feature" or form.beta:
        yield f"clt goes with topk, batchtopk and their signed forms, not with {name}"
    given = {"loss": config.loss != "plain", "skip": config.skip}
    given |= {"aux_zipf": config.aux_zipf != 0}
    for field in (field for field, is_so in given.items() if is_so):
        yield f"{field}={getattr(config, field)} is not for clt: leave it out"


def _of_order(hooks: list[str], targets: list[str]) -> Iterator[str]:
    """Layers rise, and each writes at its own layer or later."""
    layers = [[layer_of(name) for name in names] for names in (hooks, targets)]
    for named in layers:
        if None not in named and any(b <= a for a, b in pairwise(named)):
            yield f"clt needs layers that rise, these are {named}: name each hook once, in order"
    for source, target in zip(*layers, strict=False):
        if None not in (source, target) and target < source:
            yield f"layer {source} would write to layer {target}, which comes before it"


def layer_of(hook: str) -> Any:
    """The number of a hook's layer, None of none."""
    layer = LAYER.match(hook)
    return int(layer[1]) if layer else None


def _of_sizes(config: Config) -> Iterator[str]:
    k, n_features = config.k, config.features
    if k > n_features:
        yield f"k={k} is more than features={n_features}: choose k between 1 and {n_features}"
    if config.n_steps < 1:
        yield f"tokens={config.tokens} is less than one batch of {config.batch}"


def _of_sparsifier(config: Config) -> Iterator[str]:
    form, name = config.form, config.sparsify
    if isinstance(form, Choice) and form.over == "feature":
        if config.k * config.batch < config.features:
            least = -(-config.features // config.k)
            yield (
                f"a batch of {config.batch} gives {config.features} features less than one pair "
                f"each: --batch {least}"
            )
    elif config.shares != "equal" or config.mutual:
        yield (
            f"shares and mutual belong to a feature budget, and {name} has none: use feature-choice"
        )
    if isinstance(form, Choice) and config.penalty not in (None, "none"):
        yield f"penalty={config.penalty} is for jumprelu and relu: {name} has a budget"
    if config.penalty == "l0" and name == "relu":
        yield "penalty=l0 moves learned levels only, and relu has none: give l1 or tanh"


def _of_loss(config: Config) -> Iterator[str]:
    form, loss = config.form, config.loss
    ordered = (Choice(config.k), Choice(config.k, signed=True))
    if loss in ("hierarchical", "multi-k") and form not in ordered:
        yield (
            f"loss={loss} orders the values of each token: it goes with topk and abstopk, "
            f"not with {config.sparsify}"
        )
    if loss == "multi-k" and 4 * config.k > config.features:
        pairs = 4 * config.k
        yield f"loss=multi-k codes 4k={pairs} pairs per token, more than features={config.features}"
    most = {"matryoshka": config.features, "hierarchical": config.k}.get(loss, 0)
    ends = list(config.prefixes)
    if ends != sorted(set(ends)) or not all(0 < end <= most for end in ends):
        right = "belong to loss=matryoshka or loss=hierarchical"
        if most:
            right = f"must rise, from 1 to at most {most}"
        yield f"prefixes={ends} {right}"


def _of_adam(config: Config) -> Iterator[str]:
    if config.moments != "float32" and config.dtype != "float32":
        yield (
            f"moments=bfloat16 keeps the parameters in float32, and dtype={config.dtype} rounds "
            "them: give dtype=float32"
        )
