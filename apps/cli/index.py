"""Build the feature index of a run: one pass of its cache through the SAE into features.db, which
the browser reads.

    saelab index runs/a
    saelab index runs/a --compare runs/b --map
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from saelab.errors import UsageError
from saelab.ranges import Count
from saelab.runs import RunFolder

from .common import OfCache, document, show
from .progress import bar

if TYPE_CHECKING:
    from saelab.coder import Coder


@dataclass(frozen=True)
class Args(OfCache):
    """Options of `saelab index`."""

    run: Positional[Path] = Path()
    """run folder"""
    images: Annotated[str | None, arg(metavar="IMAGES")] = None
    """of a vision model: where the images of the cache lie now (default: where they did)"""
    compare: UseAppendAction[tuple[Path, ...]] = ()
    """run to look every feature up in, such as another seed's; may be given several times"""
    tokens: Count = 1_000_000
    """tokens to read, such as 500k or 2M"""
    split: Literal["train", "held_out"] = "train"
    """which documents to read"""
    map: bool = False
    """lay the decoder directions out in a plane: t-SNE of up to 20,000 features (minutes), above
    that the plane of their two largest principal components"""


def run(args: Args) -> int:
    """Index, write features.db into the run, print what it holds."""
    from saelab import formats, indexing, opening

    started = time.perf_counter()
    place = RunFolder(args.run).path
    if place.is_dir() and not os.access(place, os.W_OK):
        raise UsageError(f"{place} cannot be written, where the index belongs: index a copy of it")
    options = {"needs": opening.IF_ANY, "device": args.place, "dtype": args.model_dtype}
    opened = opening.open(args.run, args.model, args.cache, any_kind=True, **options)
    others = []
    for path in args.compare:
        other = formats.load_any(path).to(args.place)
        others.append((_name(path, other, opened.sae), other))
    summaries = {}
    for one, same in indexing.by_layer(opened, others):
        with bar(min(args.tokens, one.cache.n_tokens(args.split)), "token") as shown:
            summaries[one.folder] = indexing.build_index(
                one,
                args.images,
                others=same,
                n_tokens=args.tokens,
                split=args.split,
                seed=args.seed,
                plane=args.map,
                progress=shown.to,
            )
    seconds = round(time.perf_counter() - started, 1)
    result = document("index", args.seed, run=str(args.run), seconds=seconds, **total(summaries))
    show(result, args.json, text(args.run, result))
    return 0


def total(summaries: "dict[RunFolder, dict]") -> dict:
    """The numbers of the index's summary; of several layers their sums, with those of each."""
    each = [{"run": str(run.path), **counts(one)} for run, one in summaries.items()]
    if len(each) == 1:
        return counts(*summaries.values())
    sums = {name: sum(one[name] for one in each) for name in ("n_features", "unseen")}
    return {**counts(*list(summaries.values())[:1]), **sums, "others": [], "layers": each}


def _name(folder: Path, other: "Coder", sae: "Coder") -> str:
    """What the pages call another SAE: its seed where that tells the two apart. Raises UsageError
    for another hook or model."""
    if reason := sae.origin.elsewhere(other.origin):
        raise UsageError(f"no feature of {folder} is to be found again: {reason}")
    seed = other.origin.seed
    return f"seed {seed}" if seed != sae.origin.seed else folder.resolve().name


def counts(summary: dict) -> dict:
    """The numbers of the index's summary."""
    names = ("n_tokens", "n_contexts", "n_features", "unseen", "map", "others")
    return {name: summary[name] for name in names}


def text(run: Path, result: dict) -> str:
    """The result for people."""
    layers = result.get("layers", [])
    where = f"{len(layers)} layers of {run}" if layers else RunFolder(run).features
    lines = [
        f"{where}: {result['n_features']:,} features over {result['n_tokens']:,} tokens in "
        f"{result['seconds']:.0f} s; {result['unseen']:,} never fired"
    ]
    for layer in layers:
        lines.append(
            f"{RunFolder(layer['run']).features}: {layer['n_features']:,} features, "
            f"{layer['unseen']:,} never fired"
        )
        lines += _nearest(layer["others"])
    lines += _nearest(result["others"])
    if result["map"]:
        lines.append(f"a map of the directions by {result['map']}")
    return "\n".join([*lines, f"next: saelab browse {run}"])


def _nearest(others: list[dict]) -> list[str]:
    """How well other SAEs have found the features."""
    lines = []
    for other in others:
        lines.append(
            f"nearest in {other['name']}: median cosine {other['median']:.2f}, random directions "
            f"{other['null']:.2f}"
        )
        if other["share"] is not None:
            lines.append(
                f"{other['name']} has found {other['share']:.0%} of the live features (paired one "
                f"to one, cosine above {other['threshold']})"
            )
    return lines
