"""`saelab explain --endpoint`: a language model's words, scored by its own detection."""

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from saelab.errors import UsageError
from saelab.statistics import Estimate

from .common import document, show, told
from .explain_options import Args
from .numbers import numbers
from .progress import bar

if TYPE_CHECKING:
    from saelab.explaining.asking import Asked
    from saelab.explaining.endpoint import Endpoint
    from saelab.explaining.records import Explanation

PER_FEATURE = 3  # questions: the explanation, its detection, that of another one


def run(args: Args) -> int:
    """Ask, write what is answered into explanations.db, print it."""
    from saelab import opening
    from saelab.explaining import asking, corpus, explain, families, store
    from saelab.spelling import pieces

    endpoint, started = _endpoint(args), time.perf_counter()
    options = {"device": args.place, "dtype": args.model_dtype}
    folder, sae, cache, model = opening.open(args.run, args.model, args.cache, **options)
    asked = numbers(args.features, sae.n_features)
    if not asked:
        raise UsageError("--endpoint asks about features by number: name them, --features 7,12")
    sae, words = sae.frozen(), pieces(model.tokenizer, len(model.tokenizer))
    limits = (args.tokens, args.held_out)
    read, firings = corpus.read(sae, cache, sae.origin.hook, *limits)
    units = explain.main_units(asked, read, firings, sae.sparsify.signed)
    digest = folder.sae_digest()
    print(
        f"asking {endpoint.url}, model {endpoint.model}, about {len(units):,} live features: "
        f"at most {PER_FEATURE * len(units):,} questions with texts of {cache.path}",
        file=sys.stderr,
    )
    with bar(len(units), "feature") as shown:
        answer = asking.ask(
            endpoint,
            units,
            read,
            firings,
            words,
            explain.of_tokens(read, firings, families.every(read, words)),
            seed=args.seed,
            # Each is kept as soon as it is there: answers cost time and money.
            keep=lambda n, one: store.write(
                folder.explanations, digest, endpoint.model, {n: one}, {"url": endpoint.url}
            ),
            progress=shown.to,
        )
    asking.check(answer, endpoint.url)
    rows = [row(number, answer.by_feature.get(number)) for number in asked]
    fields = {"run": str(args.run), "sae": digest, "method": endpoint.model, **counts(answer)}
    seconds = round(time.perf_counter() - started, 1)
    result = document("explain", args.seed, **fields, seconds=seconds, features=rows)
    show(result, args.json, text(result))
    return 0


def _endpoint(args: Args) -> "Endpoint":
    """What the options name. Raises UsageError for what cannot be asked."""
    from saelab.explaining.endpoint import Endpoint

    key = os.environ.get(args.key_from, "")
    endpoint = Endpoint(args.endpoint, args.model_name, key, args.timeout)
    endpoint.check()
    return endpoint


def counts(answer: "Asked") -> dict[str, Any]:
    """How many were answered, and their mean scores on the same held-out windows."""
    scored = [one for one in answer.by_feature.values() if one.score.value is not None]
    return {
        "live": len(answer.by_feature),
        "unseen": len(answer.by_feature) - len(scored),
        "rule": _mean([(one.score.value, one.score.null) for one in scored]).as_dict(),
        "token": _mean([(one.token.value, one.token.null) for one in scored]).as_dict(),
        "gain": _mean([(_less(one.score, one.token), 0.0) for one in scored]).as_dict(),
        "unanswered": [
            {"feature": feature, "why": why} for feature, why in answer.unanswered.items()
        ],
    }


def _less(mine: Estimate, theirs: Estimate) -> float:
    assert mine.value is not None and theirs.value is not None
    return mine.value - theirs.value


def _mean(pairs: list[tuple[float | None, float | None]]) -> Estimate:
    """The mean over features, of which there are few: no interval."""
    if not pairs:
        return Estimate(None)
    values, nulls = zip(*pairs, strict=True)
    known = [null for null in nulls if null is not None]
    return Estimate(float(np.mean(values)), null=float(np.mean(known)) if known else None)


def row(feature: int, one: "Explanation | None") -> dict[str, Any]:
    """A feature of the document; without explanation where it never fired."""
    if one is None:
        return {"feature": feature, "text": None}
    names = ("text", "kind", "cells", "recall", "precision", "firings")
    plain = {name: getattr(one, name) for name in names}
    estimates = {name: getattr(one, name).as_dict() for name in ("score", "token", "gain")}
    return {"feature": feature, **plain, **estimates}


def text(result: dict) -> str:
    """The result for people."""
    lines = [f"{result['method']}: balanced accuracy of detection on held-out windows"]
    for one in result["features"]:
        if one["text"] is not None:
            score, null, token = (
                told(one[key][part], ".2f")
                for key, part in (("score", "value"), ("score", "null"), ("token", "value"))
            )
            lines.append(f"  {one['feature']:6}  {score:>4}  {one['text']}")
            lines.append(f"          another feature's words {null}, best single token {token}")
    for one in result["unanswered"]:
        lines.append(f"  {one['feature']:6}  no usable reply: {one['why']}")
    return "\n".join([*lines, f"next: saelab browse {result['run']}"])
