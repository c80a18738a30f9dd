"""What the document of `saelab prompt` says of one text."""

from typing import TYPE_CHECKING, Any, NamedTuple

from saelab.errors import UsageError

if TYPE_CHECKING:
    from saelab.analysis.prompts import Attribution, Table
    from saelab.prompting import Bench, Reading

EVERY = 5  # features of each token
ONE = 20  # of one token, of an attribution, of a comparison


class Asked(NamedTuple):
    """What is asked of one text."""

    text: str
    next: str | None = None
    """token whose logit is attributed"""
    against: str | None = None
    """token whose logit is subtracted from it"""
    compare: str | None = None
    """another text"""


def fields(args: Any, bench: "Bench", asked: Asked) -> dict[str, Any]:
    """What the document says of one text."""
    from saelab import prompting

    reading = prompting.read(bench, asked.text, args.parse_special, args.estimate)
    features = _features(args.features, bench.sae.n_features)
    return {
        "run": str(args.run),
        "hook": bench.sae.origin.hook,
        "target": bench.sae.origin.target,
        "by": args.by,
        "estimate": args.estimate,
        "tokens": _tokens(reading),
        "features": _listed(args, reading),
        "traces": _traces(reading, features),
        "errors": _errors(bench, reading),
        "exact": _exact(bench, reading) if args.exact else None,
        "attribution": _attribution(args, asked, bench, reading),
        "comparison": _comparison(args, asked, bench, reading),
    }


def _features(words: str, n_features: int) -> list[int]:
    from .explain import numbers

    return numbers(words, n_features)


def _tokens(reading: "Reading") -> list[dict[str, Any]]:
    """Each token with the loss of predicting it, in nats."""
    prompt, loss = reading.prompt, reading.read.loss
    losses = [None] * len(prompt.texts) if loss is None else [None, *loss.tolist()]
    rows = zip(prompt.tokens.tolist(), prompt.texts, losses, strict=True)
    return [{"id": number, "text": text, "loss": lost} for number, text, lost in rows]


def row(table: "Table", number: int) -> dict[str, Any]:
    """A pair of a token and a feature."""
    names = ("position", "feature", "value", "usual", "effect")
    columns = {name: getattr(table, name) for name in names}
    return {
        name: None if column is None else column[number].item() for name, column in columns.items()
    }


def _listed(args: Any, reading: "Reading") -> list[dict[str, Any]]:
    """The strongest features of every token, or of the one asked for, by position."""
    from saelab.analysis import prompts

    last = len(reading.prompt.texts) - 1
    if args.token is not None and not 1 <= args.token <= last:
        raise UsageError(f"--token {args.token}: the text has tokens 1 to {last}")
    places = range(1, last + 1) if args.token is None else [args.token]
    n = args.top or (EVERY if args.token is None else ONE)
    rows = [prompts.on_token(reading.table, place, args.by, n).tolist() for place in places]
    return [row(reading.table, number) for numbers in rows for number in numbers]


def _traces(reading: "Reading", features: list[int]) -> list[dict[str, Any]]:
    from saelab.analysis import prompts

    values = prompts.traces(reading.table, features, len(reading.prompt.texts)).tolist()
    return [
        {"feature": feature, "values": its} for feature, its in zip(features, values, strict=True)
    ]


def _errors(bench: "Bench", reading: "Reading") -> dict[str, Any]:
    """The split of each token's error, or why there is none."""
    from saelab import prompting

    try:
        parts = prompting.error_split(bench, reading)
    except UsageError as problem:
        return {"problem": str(problem), "tokens": []}
    names = [name for name in parts._fields if getattr(parts, name) is not None]
    columns = zip(*(getattr(parts, name).tolist() for name in names), strict=True)
    return {"problem": None, "tokens": [dict(zip(names, one, strict=True)) for one in columns]}


def _exact(bench: "Bench", reading: "Reading") -> dict[str, Any]:
    from saelab.analysis import prompts

    done = prompts.exact(bench.model, reading.read, reading.table)
    pairs = zip(done.rows.tolist(), done.exact.tolist(), strict=True)
    rows = [{**row(reading.table, number), "exact": exact} for number, exact in pairs]
    return {"pairs": rows, "rank_correlation": done.rank_correlation}


def _attribution(
    args: Any, asked: Asked, bench: "Bench", reading: "Reading"
) -> dict[str, Any] | None:
    if asked.next is None:
        return None
    from saelab import prompting

    parts = prompting.attribute(bench, reading, asked.next, asked.against, args.exact)
    return attribution(bench, reading, parts, args.top or ONE)


def attribution(bench: "Bench", reading: "Reading", parts: "Attribution", n: int) -> dict[str, Any]:
    """The document's part on where a logit comes from, with its n largest contributions."""
    from saelab.analysis.prompts.text import spelled

    ids = [one for one in (parts.token, parts.against) if one is not None]
    words = [spelled(bench.model, [one])[0] for one in ids]
    largest = parts.features.abs().argsort(descending=True, stable=True)[:n].tolist()
    rows = [
        {**row(reading.table, number), "contribution": float(parts.features[number])}
        for number in largest
    ]
    sums = {name: float(getattr(parts, name).sum()) for name in ("features", "bias", "error")}
    return {
        "token": words[0],
        "against": words[1] if len(words) > 1 else None,
        "position": parts.position,
        "logit": parts.logit,
        "sums": {**sums, "rest": parts.rest},
        "frozen": parts.exact,
        "features": rows,
    }


def _comparison(
    args: Any, asked: Asked, bench: "Bench", reading: "Reading"
) -> dict[str, Any] | None:
    if asked.compare is None:
        return None
    from saelab import prompting
    from saelab.analysis import prompts
    from saelab.analysis.prompts.comparing import differing

    other = prompting.read(bench, asked.compare, args.parse_special, args.estimate)
    first = differing(reading.prompt.tokens.tolist(), other.prompt.tokens.tolist())
    both = prompts.compare(reading.table, other.table, args.by)
    columns = zip(*(column.tolist() for column in both), strict=True)
    rows = [dict(zip(both._fields, one, strict=True)) for one in columns][: args.top or ONE]
    return {"tokens": _tokens(other), "differs_at": first, "features": rows}
