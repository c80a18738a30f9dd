"""Write a model's matrices as a dictionary times sparse codes (or as low rank), calibrated on a
cache's text, and say what that costs its next-token loss.

    saelab compress --cache caches/a --ratio 0.2 --out small
    saelab compress --model bundled --cache caches/a --ratio 0.3 --method whitened-svd --out low

Of the cache only the text is read: every matrix needs the moments at its own input.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import arg

from saelab.errors import UsageError
from saelab.ranges import Count, Decay, Weight

from .common import Folder, OfModel, Place, cell, document, keep, megabytes, show
from .progress import bar

if TYPE_CHECKING:
    from saelab.analysis.compression import Gram
    from saelab.models.factors import Group


@dataclass(frozen=True)
class Args(OfModel):
    """Options of `saelab compress`."""

    model: Place = None
    """bundled, a folder or a hub name (default: the model that filled the cache)"""
    cache: Folder = None
    """folder of an activation cache, of whatever hook: on its training text the moments are taken,
    on its held-out text the loss"""
    ratio: Decay = 0.2
    """share of the matrices' bits that is saved, below 1"""
    method: Literal["cospadi", "whitened-svd", "dictionary", "svd"] = "cospadi"
    """cospadi: sparse codes over a dictionary, calibrated; whitened-svd: low rank, calibrated;
    dictionary, svd: the same without looking at the inputs"""
    out: Annotated[Path | None, arg(metavar="PATH")] = None
    """folder to write: `factors` (the bytes saved; --model takes it) and `dense` (multiplied out,
    for any program)"""
    group: Count = 1
    """consecutive layers whose matrices share a dictionary"""
    rounds: Count = 20
    """of K-SVD"""
    ridge: Weight = 0.0
    """share of the mean square added to the moments in every direction, where they leave some
    out"""
    tokens: Count = 100_000
    """training tokens that the moments are of"""
    held_out: Count = 20_000
    """held-out tokens that the loss is measured on"""


def run(args: Args) -> int:
    """Compress, write, load what was written, measure it, print what it costs."""
    from saelab import models
    from saelab.activations import Cache
    from saelab.analysis import compression
    from saelab.files import undone

    if args.cache is None or args.out is None:
        raise UsageError("name a cache and a folder to write: saelab compress --cache C --out DIR")
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise UsageError(f"{args.out} exists and is not empty: choose another --out")
    cache = Cache(args.cache)
    place = {"device": args.place, "dtype": args.model_dtype or "float32"}
    model = models.load(args.model or cache.identity.name, **place)
    models.check(model, cache.identity, f"the cache {args.cache}")
    every = compression.matrices(model)
    with undone(args.out) as kept:
        moments = _moments(args, model, cache)
        groups = _factors(args, model, moments)
        compression.write(args.out, model, groups)
        small = models.load(args.out / compression.FACTORS, **place)
        with bar(args.held_out, "token", "loss") as shown:
            measured = compression.effect(
                model, small, every, cache, args.held_out, args.seed, shown.to
            )
        told = _fields(args, model, groups, measured)
        told["tokens"] = max((gram.n for gram in moments.values()), default=0)
        result = document("compress", args.seed, **told)
        keep(args.out / "compress.json", result)
        kept()
    show(result, args.json, text(result))
    return 0


def _moments(args: Args, model: Any, cache: Any) -> "dict[str, Gram]":
    """Of a calibrated method the moments at what its matrices read, by hook."""
    from saelab.analysis import compression

    if not compression.METHODS[args.method].calibrated:
        return {}
    hooks = [matrix.hook for matrix in compression.matrices(model)]
    with bar(args.tokens, "token", "moments") as shown:
        return compression.grams(
            model, cache, list(dict.fromkeys(hooks)), args.tokens, progress=shown.to
        )


def _factors(args: Args, model: Any, moments: "dict[str, Gram]") -> "list[Group]":
    """The model's matrices as factors."""
    from saelab.analysis import compression

    groups = compression.grouped(compression.matrices(model), args.group)
    plan = compression.Plan(args.ratio, args.rounds, args.seed)
    with bar(len(groups), "group", "factors") as shown:
        return compression.compress(model, groups, moments, args.method, plan, args.ridge, shown.to)


def _fields(args: Args, model: Any, groups: "list[Group]", measured: Any) -> dict[str, Any]:
    """What the document says."""
    from saelab.analysis import compression
    from saelab.models import factors, loading

    reads = {matrix.name: matrix.reads for matrix in compression.matrices(model)}
    before = sum(p.n_outputs * len(g.factors.dictionary_IK) for g in groups for p in g.parts)
    assert args.out is not None
    whole = (args.out / compression.FACTORS / factors.NAME).stat().st_size
    stored = sum(file.stat().st_size for file in loading.weight_files(model.located.folder))
    losses = {name: getattr(measured, name) for name in ("original", "compressed", "difference")}
    return {
        "model": model.located.name,
        "cache": str(args.cache),
        "out": str(args.out),
        **{name: getattr(args, name) for name in ("method", "ratio", "group", "rounds", "ridge")},
        "predictions": measured.n_predictions,
        "documents": measured.n_documents,
        "bytes": {
            "matrices": 2 * before,
            "compressed": sum(-(-g.factors.bits // 8) for g in groups),
            "model": stored,
            "factors": whole,
        },
        "loss": {name: estimate.as_dict() for name, estimate in losses.items()},
        "matrices": [
            {
                "names": [part.name for part in group.parts],
                "reads": reads[group.parts[0].name],
                "inputs": len(group.factors.dictionary_IK),
                "outputs": sum(part.n_outputs for part in group.parts),
                "atoms": group.factors.dictionary_IK.shape[1],
                "nonzeros": group.factors.n_nonzero,
                "bits": group.factors.bits,
                "changes": [measured.outputs[part.name].as_dict() for part in group.parts],
            }
            for group in groups
        ],
    }


def text(result: dict[str, Any]) -> str:
    """The result for people."""
    size, loss = result["bytes"], result["loss"]
    lines = [
        f"{result['out']}: {result['model']} by {result['method']}",
        f"  matrices {megabytes(size['matrices'])} -> {megabytes(size['compressed'])}; the whole "
        f"file {megabytes(size['model'])} -> {megabytes(size['factors'])}",
        f"  loss on {result['predictions']:,} held-out tokens of {result['documents']} documents, "
        f"in nats: {cell(loss['original'])} -> {cell(loss['compressed'])}",
        f"  changed by {cell(loss['difference'])}",
        "  change of each matrix's outputs, as a share of their size:",
    ]
    for row in result["matrices"]:
        for name, change in zip(row["names"], row["changes"], strict=True):
            lines.append(f"    {name:40} {row['atoms']:5} atoms  {cell(change, '.2e')}")
    return "\n".join(lines)
