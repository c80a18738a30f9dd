"""Train a sparse autoencoder, or several in one pass, on a cache of activations or, with --live, on
a model that runs meanwhile.

`saelab train RECIPE.yaml ...` takes the defaults of these options from a YAML file. A field that it
gives as a list makes a run of each value, several lists make their product; each run gets a folder
in --out. An option given here replaces the recipe's. --hook may be given several times, which makes
a run of each (with --crosscoder or --clt one run of all); a `*` in it stands for every hook of the
cache that it matches, in --target for the hook's layer.

    saelab train --cache caches/a --out runs/a --k 32
    saelab train RECIPE.yaml --cache caches/a
    saelab train --cache caches/a --hook 'blocks.*.mlp.hook_in' --target 'blocks.*.hook_mlp_out' \
        --out runs/transcoders
    saelab train --cache caches/a --hook 'blocks.*.mlp.hook_in' --target 'blocks.*.hook_mlp_out' \
        --clt --out runs/clt
    saelab train --cache caches/a --dictionary k-svd --features 512 --k 16 --out runs/k-svd
    saelab train --live --model bundled --text stdlib --hook blocks.1.hook_resid_post --out runs/b
    torchrun --nproc-per-node 8 --no-python saelab train --cache caches/a --out runs/a --k 32
"""

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Fixed, Suppress

from saelab import Config, ranks
from saelab.door import beside
from saelab.errors import FailedRun, UsageError
from saelab.outdated import outdated
from saelab.runs import RunFolder

from .common import document, show
from .progress import Bar, bar


@dataclass(frozen=True)
class Args(Config):
    """Options of `saelab train`; a recipe, a YAML file with any of these fields, may come first and
    give the defaults."""

    resume: bool = False
    """go on from the newest checkpoint of the run folder; with another --tokens under the schedule
    of that length"""
    json: bool = False
    """print the result as JSON on stdout"""
    over: Annotated[dict[str, tuple], Fixed, Suppress] = field(default_factory=dict)
    """the fields that the recipe gives as lists, with their values"""
    extend: Annotated[bool, Fixed, Suppress] = False
    """whether --tokens is given: only then may it differ from a resumed run's"""

    def configs(self) -> list[Config]:
        """The configurations of the runs alone."""
        return (
            beside("training.sweep")
            .Sweep(Config(**{f.name: getattr(self, f.name) for f in fields(Config)}), self.over)
            .configs()
        )


def default(argv: list[str]) -> Args:
    """The recipe's values if the first argument names one (it is then removed from argv), else the
    defaults."""
    given = {word[2:].partition("=")[0].replace("-", "_") for word in argv if word.startswith("--")}
    values, over = {}, {}
    if argv and not argv[0].startswith("-"):
        recipe = beside("training.recipes").sweep(argv.pop(0))
        values = vars(recipe.base)
        over = {name: several for name, several in recipe.over.items() if name not in given}
    if len(hooks := _repeated(argv, "--hook")) > 1:
        values, over = {**values, "hook": hooks[0]}, {**over, "hook": tuple(hooks)}
    return Args(**values, extend="tokens" in given, over=over)


def _repeated(argv: list[str], option: str) -> list[str]:
    """The values of an option that is given more than once, which is then removed from argv."""
    places = [i for i, word in enumerate(argv) if word.partition("=")[0] == option]
    if len(places) < 2 or argv[-1] == option:
        return []
    values = []
    for place in reversed(places):
        _, equals, value = argv.pop(place).partition("=")
        values.append(value if equals else argv.pop(place))
    return values[::-1]


def train_showing_progress(configs: Sequence[Config], **options: Any) -> None:
    """Train with a progress bar on stderr; warn there of runs that were too short."""
    first, bars, shown = configs[0], contextlib.ExitStack(), {}
    numbers: dict[str, str] = {}

    def at(total: int, unit: str, what: str) -> Bar:
        if what not in shown:  # the one before it, if there is one, has come to its end
            bars.close()
            shown[what] = bars.enter_context(bar(total, unit, what))
        return shown[what]

    def keeping(n_tokens: int) -> None:
        at(first.keep, "token", "kept cache").to(n_tokens)

    def progress(step: int, n_steps: int, steps: list) -> None:
        if step % first.log_every == 0 or step in (1, n_steps):  # reading them waits for a card
            row = steps[0].row()
            numbers.update(fvu=f"{row['fvu']:.3f}", l0=f"{row['l0']:.1f}")
            numbers.update(dead=f"{row['dead']:.1%}")
        at(n_steps, "step", "").to(step, **numbers)

    with bars:
        if not first.live and not first.dictionary:  # which is fitted at once
            at(first.n_steps, "step", "")
        train = beside("training.loop").train
        train(configs, progress=progress, keeping=keeping, **options)
    for config in () if ranks.rank() else configs:
        warn(config)


def run(args: Args) -> int:
    """Train; print where each run lies and its last numbers."""
    configs = args.configs()
    for config in configs if ranks.world() == 1 else ():  # else one of them tells what they find
        beside("training.checks").check(config)
    train_showing_progress(configs, resume=args.resume, extend=args.extend)
    if ranks.rank():
        return 0
    for config in configs:
        _tell_outdated(RunFolder(config.out))
    ends = [summary(config) for config in configs]
    results = [{"run": config.out, **end[0]} for config, end in zip(configs, ends, strict=True)]
    text = "\n".join([*(end[1] for end in ends), f"next: saelab eval {configs[0].out}"])
    alone = len(configs) == 1 and not args.over
    whole = results[0] if alone else {"runs": results}
    show(document("train", args.seed, **whole), args.json, text)
    return 0


def _tell_outdated(folder: RunFolder) -> None:
    """Say on stderr which results are of the SAE that lay there before; a damaged one spoils no
    training, it is named where it is read."""
    with contextlib.suppress(FailedRun, UsageError):
        if names := outdated(folder):
            how = "`saelab eval`, `saelab index` and the like make them anew"
            listed = ", ".join(names)
            print(f"{folder.path}: of an earlier SAE are {listed}; {how}", file=sys.stderr)


def summary(config: Config) -> tuple[dict, str]:
    """The last row of a run's metrics.jsonl with the peak of its rate, and a line for people."""
    rows = beside("training.rate").rows(Path(config.out))
    last, peak = rows[-1], max(row["lr"] for row in rows)
    numbers = f"FVU {last['fvu']:.3f}, L0 {last['l0']:.1f}, dead {last['dead']:.1%}"
    if config.dictionary:
        return last, f"{config.out}: {numbers}, {config.dictionary} of {last['tokens']:,} tokens"
    after = f"after {last['tokens']:,} training tokens at rate {peak:.2g}"
    return {**last, "learning_rate": peak}, f"{config.out}: {numbers} {after}"


def warn(config: Config) -> None:
    """Say on stderr, with what to do, that the loss was still falling as the rate began to, and
    that AuxK brought no dead feature back."""
    rate, rows = beside("training.rate"), beside("training.rate").rows(Path(config.out))
    fell = rate.fall(rows, config.n_steps, config.decay)
    if fell > rate.FELL:
        higher = "" if config.lr is None else f", or a higher --lr than {config.lr:.2g},"
        print(
            f"{config.out}: the loss was still falling when the decay began ({fell:.0%} over the "
            f"fifth of the steps before it): more --tokens than {config.tokens:,}{higher} would "
            "lower it",
            file=sys.stderr,
        )
    if loss := beside("training.dead").idle(rows):
        remedy = "a lower --lr" if config.revive else "--revive, or a lower --lr,"
        print(
            f"{config.out}: AuxK has brought no dead feature back, its loss stayed at {loss:.2f} "
            f"and doing nothing gives 1; {rows[-1]['dead']:.1%} of the features are dead: {remedy} "
            "would leave fewer",
            file=sys.stderr,
        )
