"""Compare SAEs at one place of a model on the same held-out tokens: paired differences of every
metric, the features they share, those that one alone has, and those that are split. Two questions
have a verdict: do these runs differ (paired by document), and do their configurations (over three
seeds of each)?

    saelab compare runs/a runs/b
    saelab compare runs/k32-s0 runs/k32-s1 runs/k32-s2 --against runs/k64-s0 runs/k64-s1 runs/k64-s2
    saelab compare 'runs/k32-*' --against 'runs/k64-*'
    saelab compare --stability runs/k32-s0 runs/k32-s1 runs/k32-s2
    saelab compare runs/a runs/b --labels sentiment.csv
"""

import os
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelab.errors import UsageError
from saelab.ranges import Count
from saelab.runs import RunFolder

from . import compare_labels, compare_stability, compare_text, groups
from .common import Folder, OfCache, Runs, document, finished, keep, show
from .groups import Measured
from .progress import bar, stage

if TYPE_CHECKING:
    from saelab import SAE


@dataclass(frozen=True)
class Args(OfCache):
    """Options of `saelab compare`."""

    runs: Runs = ()
    """run folders, at least two, or folders and patterns of them; of more, every two are compared,
    and those that differ by their seed alone are taken together"""
    against: tuple[Path, ...] = ()
    """a second group: then both are one configuration each, with several seeds, and runs of one
    seed are compared"""
    stability: bool = False
    """say of every feature in how many of the other runs, seeds of one configuration, it comes
    again; written into each run as stability.json"""
    tokens: Count = 200_000
    """held-out tokens to read, at most"""
    dead: bool = True
    """also count which features never fire on 500,000 training tokens"""
    labels: Folder = None
    """CSV file with the columns text and label: how often each label is absorbed, on the last token
    of each text"""


def run(args: Args) -> int:
    """Compare every two, write compare-OTHER.json into the first of each, print."""
    if args.stability:
        return compare_stability.run(measured(args), args.seed, json=args.json)
    pairs, grouped = compared(args)
    if len(pairs) == 1 and not args.against:
        show(pairs[0], args.json, compare_text.pair(pairs[0]))
        return 0
    result = document("comparisons", args.seed, pairs=pairs, configurations=grouped)
    show(result, args.json, compare_text.several(result))
    return 0


def compared(args: Args) -> tuple[list[dict], list[dict]]:
    """The comparisons of the pairs of runs, each written into its first; and those of
    configurations."""
    from saelab.analysis.comparison import configurations, differences

    of = measured(args)
    sides = _sides(args, of.saes)
    if args.against:
        first_side, second_side = sides
        pairs = groups.matched(first_side, second_side, of.saes)
    else:
        pairs = list(combinations(of.saes, 2))
    values = {name: differences.values(of.together, name) for name in of.saes}
    grouped = sides if args.against else configurations.groups(of.saes)
    results = []
    for pair in pairs:
        first, second = (next(group for group in grouped if name in group) for name in pair)
        apart = first is not second
        over_seeds = configurations.between(of.saes, values, first, second) if apart else None
        results.append(_pair(pair, of, over_seeds, args))
    if args.against:
        return results, [configurations.between(of.saes, values, *sides)]
    return results, configurations.compared(of.saes, values)


def measured(args: Args) -> Measured:
    """All runs on the same tokens. Raises UsageError for fewer than two, for one at another place,
    and where the tokens are of one document."""
    from saelab.analysis.comparison import measure

    named = (*groups.expanded(args.runs), *groups.expanded(args.against))
    if len(set(named)) < 2:
        raise UsageError("two runs are needed at least: saelab compare RUN RUN [RUN ...]")
    if args.against and len(set(named)) < len(named):
        raise UsageError("a run is in both groups: a configuration is compared with another one")
    folders = {str(folder): folder for folder in finished("compare", named)}
    texts = compare_labels.read(args.labels)
    opened, saes = _open(list(folders.values()), args)
    known = compare_labels.known(opened, texts)
    by_name = dict(zip(folders, saes, strict=True))
    with bar(min(args.tokens, opened.cache.n_tokens("held_out")), "token") as shown:
        options = {"n_tokens": args.tokens, "seed": args.seed, "progress": shown.to}
        options["training"] = args.dead and not args.stability
        together = measure(by_name, opened.cache, opened.model, **options)
    if len(together.documents) < 2:
        raise UsageError(
            f"the {args.tokens} held-out tokens are of one document, which says nothing of how far "
            "others would lie from it: give more --tokens, or a cache of more documents"
        )
    return Measured(folders, by_name, together, known)


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


def _sides(args: Args, saes: dict[str, "SAE"]) -> list[list[str]]:
    """The names of the two groups, if --against names a second one."""
    if not args.against:
        return []
    sides = [[str(f) for f in groups.expanded(each)] for each in (args.runs, args.against)]
    sides = [[name for name in side if name in saes] for side in sides]
    for side in sides:
        if not side:
            raise UsageError("--against compares two groups of finished runs, and one is empty")
        groups.check_group(side, saes)
    return sides


def _pair(names: tuple[str, str], of: Measured, over_seeds: dict | None, args: Args) -> dict:
    """The comparison of two runs, written into the first."""
    import numpy as np

    from saelab.analysis.comparison import differences, features, sentences, starts
    from saelab.statistics import FEW

    first, second = names
    stage(f"features of {first} and {second}")
    here, there = RunFolder(of.folders[first]), RunFolder(of.folders[second])
    together, one, other = of.together, of.saes[first], of.saes[second]
    measured = differences.differences(together, first, second, args.seed)
    rows = [each.as_dict() for each in measured]
    n_documents = len(together.documents)
    codes = together.codes
    shared = features.shared(one, other, codes[first], codes[second], args.seed)
    one_fired_F = np.array(shared["fired"]["first"])
    other_fired_F = np.array(shared["fired"]["second"])
    result = document(
        "compare",
        args.seed,
        first=first,
        second=second,
        sae=here.sae_digest(),
        second_sae=there.sae_digest(),
        second_folder=os.path.relpath(there.path.resolve(), here.path.resolve()),
        tokens=int(together.tables[first]["tokens"].sum()),
        documents=n_documents,
        interval="student" if n_documents < FEW else "bootstrap",
        **({"no_losses": together.no_losses} if together.no_losses else {}),
        sentences={
            "runs": sentences.of_runs(rows, n_documents),
            "configurations": sentences.of_configurations(over_seeds),
        },
        differences=rows,
        configurations=over_seeds,
        start=starts.beside(one, other, one_fired_F, other_fired_F, args.seed),
        **shared,
        **compare_labels.absorbed(one, other, of.known, args),
    )
    keep(here.compared(there.path), result)
    return result
