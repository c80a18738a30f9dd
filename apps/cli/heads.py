"""Which heads write the features of an attention SAE: what `saelab circuits --heads` does."""

from typing import Any

from saelab.errors import UsageError

from .common import cell, document, keep, show
from .progress import stage

SHOWN = 12  # features printed; heads.json has all


def run(args: Any) -> int:
    """Measure, write heads.json into the run, print; args: of `saelab circuits`."""
    from saelab import opening
    from saelab.analysis.attention import report

    if len(args.run) > 1:
        raise UsageError(
            f"--heads splits over one residual SAE: name one --run, not {len(args.run)}"
        )
    options: dict[str, Any] = {"device": args.place, "dtype": args.model_dtype or "float32"}
    folder, sae, cache, model = opening.open(args.heads, args.model, args.cache, **options)
    residual = None
    if args.run:
        residual = opening.open(args.run[0], model, needs=("model",), **options).sae
    fields = report.report(model, sae, cache, args.tokens, residual, args.seed, stage)
    result = document("heads", args.seed, **fields, sae=folder.sae_digest())
    keep(folder.heads, result)
    next_ = f"{folder.heads} written; next: saelab browse {folder.path}"
    show(result, args.json, f"{text(result)}\n\n{next_}")
    return 0


def text(result: dict[str, Any]) -> str:
    """The tables of heads and of features."""
    parts = [_heads(result), *_prefixes(result), _features(result)]
    if result["traced"]:
        parts.append(_traced(result["traced"]))
    return "\n\n".join(parts)


def _heads(result: dict[str, Any]) -> str:
    names = list(result["heads"][0]["kinds"])
    n, part = result["sequences"]["n"], result["sequences"]["part"]
    lines = [
        f"share of attention on {n} sequences of {part} random tokens, repeated; (chance)",
        f"{'head':5}" + "".join(f"{name:>22}" for name in names) + "  features  called",
    ]
    for row in result["heads"]:
        shares = (row["kinds"][name] for name in names)
        cells = "".join(f"{share['value']:13.3f} ({share['null']:.3f}) " for share in shares)
        called = ", ".join(row["called"]) or "-"
        themes = "; its features are alike" if row["alike"] else ""
        lines.append(f"h{row['head']:<4}{cells} {row['n_written']:9,}  {called}{themes}")
    return "\n".join(lines)


def _prefixes(result: dict[str, Any]) -> list[str]:
    """How the heads that do induction score where more tokens match; no part without such heads."""
    rows = [row for row in result["heads"] if "induction" in row["called"]]
    if not rows:
        return []
    lengths = result["sequences"]["prefixes"]
    lines = [
        "induction: attention to the token that followed, where so many tokens before it match",
        f"{'head':5}" + "".join(f"{length:>24}" for length in lengths),
    ]
    for row in rows:
        cells = "".join(f"{cell(share, '.3f'):>24}" for share in row["by_prefix"])
        lines.append(f"h{row['head']:<4}{cells}")
    return ["\n".join(lines)]


def _features(result: dict[str, Any]) -> str:
    agreement = result["agreement"]
    lines = [
        f"{len(result['features']):,} features fire, {result['n_firings']:,} times in "
        f"{result['n_documents']:,} documents; the head that writes most of each, and from where",
        f"{'feature':>8} {'firings':>8}  head  {'share (chance ' + _null(result) + ')':26} from",
    ]
    for row in result["features"][:SHOWN]:
        place = row["from"]
        words = " ".join(repr(word) for word in row["sources"])
        lines.append(
            f"{row['feature']:8} {row['firings']:8,}  h{row['head']:<4} "
            f"{cell(row['share'], '.3f'):26} {place} {row['places'][place]:.0%}: {words}"
        )
    told = cell(agreement, ".3f")
    lines.append(f"rank correlation of decoder shares with what heads write {told}")
    return "\n".join(lines)


def _null(result: dict[str, Any]) -> str:
    first = result["features"][0]["share"]["null"] if result["features"] else None
    return "-" if first is None else f"{first:.3f}"


def _traced(rows: list[dict[str, Any]]) -> str:
    lines = [
        "strongest firings, split over the residual SAE's features (what each loses without one, "
        "where attention, norms and MLPs may answer)"
    ]
    for row in rows:
        parts = ", ".join(
            f"{part['value']:+.2f} ({part['lost']:+.2f}) of {part['feature']} at {part['token']!r}"
            for part in row["parts"]
        )
        lines.append(f"{row['feature']:8} {row['value']:.2f} at {row['token']!r}: {parts}")
    return "\n".join(lines)
