"""Compare SAEs at one place of a model on the same held-out tokens: paired differences of every
metric, the features they share, those that one alone has, and those that are split.

    saelab compare runs/a runs/b
    saelab compare runs/k32-s0 runs/k32-s1 runs/k32-s2 runs/k64-s0 runs/k64-s1 runs/k64-s2
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelab.errors import UsageError
from saelab.ranges import Count
from saelab.runs import RunFolder

from . import compare_text
from .common import OfCache, Runs, document, finished, keep, show
from .progress import bar, stage

if TYPE_CHECKING:
    from saelab import SAE
    from saelab.analysis.comparison import Together


@dataclass(frozen=True)
class Args(OfCache):
    """Options of `saelab compare`."""

    runs: Runs = ()
    """run folders, at least two; of more, every two are compared, and those that differ by their
    seed alone are taken together"""
    tokens: Count = 200_000
    """held-out tokens to read, at most"""
    dead: bool = True
    """also count which features never fire on 500,000 training tokens"""


def run(args: Args) -> int:
    """Compare every two, write compare-OTHER.json into the first of each, print."""
    from saelab.analysis.comparison import configurations

    pairs, named = compared(args)
    if len(pairs) == 1:
        show(pairs[0], args.json, compare_text.pair(pairs[0]))
        return 0
    grouped = configurations.compared(named, _values(pairs))
    result = document("comparisons", args.seed, pairs=pairs, configurations=grouped)
    show(result, args.json, compare_text.several(result))
    return 0


def compared(args: Args) -> tuple[list[dict], dict[str, "SAE"]]:
    """The comparison of every two runs, written into the first of each; and the SAEs."""
    from saelab.analysis.comparison import measure

    if len(set(args.runs)) < 2:
        raise UsageError("two runs are needed at least: saelab compare RUN RUN [RUN ...]")
    folders = finished("compare", args.runs)
    opened, saes = _open(folders, args)
    named = {str(folder): sae for folder, sae in zip(folders, saes, strict=True)}
    with bar(min(args.tokens, opened.cache.n_tokens("held_out")), "token") as shown:
        together = measure(
            named,
            opened.cache,
            opened.model,
            n_tokens=args.tokens,
            seed=args.seed,
            training=args.dead,
            progress=shown.to,
        )
    return [_pair(*two, named, together, args) for two in combinations(folders, 2)], named


def _open(folders: list[Path], args: Args) -> tuple[Any, list["SAE"]]:
    """The first run with its cache and model, and every run's SAE. Raises UsageError, before the
    model is loaded, for one at another place."""
    from saelab import opening

    options: dict[str, Any] = {"device": args.place, "dtype": args.model_dtype}
    saes = [opening.open(folder, needs=(), **options).sae for folder in folders]
    for folder, sae in zip(folders[1:], saes[1:], strict=True):
        if reason := saes[0].origin.elsewhere(sae.origin):
            raise UsageError(f"{folder} cannot be compared with {folders[0]}: {reason}")
    return opening.open(folders[0], args.model, args.cache, needs=opening.IF_ANY, **options), saes


def _pair(
    first: Path, second: Path, saes: Mapping[str, "SAE"], together: "Together", args: Args
) -> dict:
    """The comparison of two runs, written into the first."""
    from saelab.analysis.comparison import differences, features
    from saelab.statistics import FEW

    stage(f"features of {first} and {second}")
    names = (str(first), str(second))
    here, there = RunFolder(first), RunFolder(second)
    changed = differences.differences(together, *names, args.seed)
    n_documents = len(together.documents)
    result = document(
        "compare",
        args.seed,
        first=names[0],
        second=names[1],
        sae=here.sae_digest(),
        second_sae=there.sae_digest(),
        second_folder=os.path.relpath(there.path.resolve(), here.path.resolve()),
        tokens=int(together.tables[names[0]]["tokens"].sum()),
        documents=n_documents,
        interval="student" if n_documents < FEW else "bootstrap",
        **({"no_losses": together.no_losses} if together.no_losses else {}),
        differences=[each.as_dict() for each in changed],
        **features.shared(
            saes[names[0]],
            saes[names[1]],
            together.codes[names[0]],
            together.codes[names[1]],
            args.seed,
        ),
    )
    keep(here.compared(second), result)
    return result


def _values(pairs: list[dict]) -> dict[str, dict[str, float | None]]:
    """Every metric of every run."""
    values: dict[str, dict[str, float | None]] = {}
    for pair in pairs:
        for side in ("first", "second"):
            values[pair[side]] = {row["metric"]: row[side] for row in pair["differences"]}
    return values
