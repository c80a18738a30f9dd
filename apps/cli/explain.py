"""Explain features by rules: tokens, n-grams, kinds of tokens, places, output tokens, found on
training contexts and scored by detection on held-out ones.

    saelab explain runs/a
    saelab explain runs/a --features 7,12,100-120
    saelab explain runs/a --features 7,12 --endpoint http://127.0.0.1:8000/v1 --model-name qwen
"""

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from saelab.runs import RunFolder

from . import explain_endpoint
from .common import cell, document, show, told
from .explain_endpoint import row
from .explain_options import Args
from .numbers import numbers
from .progress import bar

if TYPE_CHECKING:
    from saelab.explaining.explain import Explained

__all__ = ["Args", "run"]


def run(args: Args) -> int:
    """Explain, write explanations.db into the run, print what it holds."""
    if args.endpoint or args.model_name:
        return explain_endpoint.run(args)
    return _rules(args)


def _rules(args: Args) -> int:
    from saelab import opening
    from saelab.explaining import store
    from saelab.explaining.explain import explain
    from saelab.explaining.records import RULES
    from saelab.spelling import pieces

    started = time.perf_counter()
    options = {"needs": opening.IF_ANY, "device": args.place, "dtype": args.model_dtype}
    folder, sae, cache, model = opening.open(args.run, args.model, args.cache, **options)
    asked = numbers(args.features, sae.n_features)
    promoted_FJ, suppressed_FJ = output_tokens(sae, model)
    limits = [min(args.tokens, cache.n_tokens()), min(args.held_out, cache.n_tokens("held_out"))]
    with bar(sum(limits), "token") as shown:
        explained, *_ = explain(
            sae,
            cache,
            model and pieces(model.tokenizer, len(model.tokenizer)),
            promoted_FJ=promoted_FJ,
            suppressed_FJ=suppressed_FJ,
            n_tokens=args.tokens,
            n_held_out=args.held_out,
            seed=args.seed,
            progress=shown.to,
        )
    said = counts(explained)
    store.write(folder.explanations, folder.sae_digest(), RULES, explained.by_feature, said)
    rows = [row(number, explained.by_feature.get(number)) for number in asked]
    fields = {"run": str(args.run), "sae": folder.sae_digest(), "method": RULES, **said}
    seconds = round(time.perf_counter() - started, 1)
    result = document("explain", args.seed, **fields, seconds=seconds, features=rows)
    show(result, args.json, text(folder, result))
    return 0


def output_tokens(sae: Any, model: Any) -> tuple[Any, Any]:
    """[F, J] each: the tokens that features promote and suppress, where the decoder writes to the
    residual stream of a model that is there whole; else None."""
    from saelab.features import directions

    writes = directions.writes_to_residual(sae.origin.target or sae.origin.hook)
    if model is None or getattr(model, "lacking", ()) or not writes:
        return None, None
    ids_F2J, _ = directions.output_tokens(sae.W_dec.detach(), directions.output_map(model), 10)
    return ids_F2J[:, 0].numpy(), ids_F2J[:, 1].numpy()


def counts(explained: "Explained") -> dict[str, Any]:
    """What explanations were found and scored on, and their mean scores."""
    kinds = Counter(one.kind for one in explained.by_feature.values() if one.kind)
    return {
        **{name: getattr(explained, name) for name in ("tokens", "held_out", "documents")},
        **{name: getattr(explained, name) for name in ("live", "unseen", "without")},
        "kinds": dict(kinds.most_common()),
        "absent": explained.absent,
        **{name: mean.as_dict() for name, mean in explained.means.items()},
    }


MEANS = (
    ("rule", "explanations"),
    ("token", "best single token"),
    ("gain", "difference, paired"),
)


def text(folder: RunFolder, result: dict) -> str:
    """The result for people."""
    known = result["live"] - result["unseen"]
    lines = [
        f"{folder.explanations}: {result['live']:,} live features over {result['tokens']:,} "
        f"training tokens in {result['seconds']:.0f} s",
        f"detection on {result['held_out']:,} tokens of {result['documents']:,} held-out "
        f"documents, mean balanced accuracy of the {known:,} features that fire there",
    ]
    for key, name in MEANS:
        null = told(result[key]["null"])
        lines.append(f"  {name:20} {cell(result[key])}   null {null}")
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in result["kinds"].items())
    lines += [f"rules: {kinds}; none found for {result['without']:,}"]
    for why in dict.fromkeys(result["absent"].values()):
        names = ", ".join(name for name, one in result["absent"].items() if one == why)
        lines.append(f"no rules on {names}: {why}")
    for one in result["features"]:
        if one["text"] is None:
            lines.append(f"  {one['feature']:6}  never fired")
        else:
            score = told(one["score"]["value"], ".2f")
            lines.append(f"  {one['feature']:6}  {score:>4}  {one['text']}")
    return "\n".join([*lines, f"next: saelab browse {folder.path}"])
