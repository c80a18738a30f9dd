"""Say what a run's SAE makes of one's own text: the features of each token, by value, by value
over the usual one, or by estimated effect on the loss; where a next token comes from; two texts
compared.

    saelab prompt runs/demo "import numpy as np"
    saelab prompt runs/demo "def f(self" --next "):" --by effect

A special token that the text spells out, such as <|endoftext|>, is text unless --parse-special.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from saelab.errors import UsageError
from saelab.ranges import Count, OrNone

from . import prompt_text
from .common import Folder, OfCache, document, show, unsaid

if TYPE_CHECKING:
    from saelab.analysis.prompts import Attribution, Table
    from saelab.prompting import Bench, Reading

Run = Annotated[Positional[Path], arg(metavar="RUN")]
Text = Annotated[Positional[str | None], arg(metavar="[TEXT]")]
Word = Annotated[str | None, arg(metavar="TOKEN")]
Numbers = Annotated[str, arg(metavar="NUMBERS")]
EVERY = 5  # features of each token
ONE = 20  # of one token, of an attribution, of a comparison


@dataclass(frozen=True)
class Args(OfCache):
    """Options of `saelab prompt`."""

    run: Run = Path()
    """run folder"""
    text: Text = None
    """the text; with --file it is read from there"""
    file: Folder = None
    """file whose text is read"""
    by: Literal["value", "usual", "effect"] = "value"
    """order of the features: their value, that over the feature's own mean where it fires, or the
    estimated effect on the loss, value x (W_dec . dL/dx)"""
    estimate: Literal["integrated", "gradient"] = "integrated"
    """where that gradient is taken: integrated over each large feature's way to its absence (32
    passes), or at the activation itself (one; wrong for dense features)"""
    top: Annotated[Count | None, unsaid] = None
    """features to list: of each token (default: 5), of the one of --token, of --next and of
    --compare (default: 20)"""
    token: Annotated[OrNone | None, unsaid] = None
    """position of one token, all of whose features are listed"""
    features: Numbers = ""
    """features whose values on every token are listed, such as 7,12"""
    next: Word = None
    """token that comes next, such as "):", whose logit is attributed to features"""
    against: Word = None
    """token whose logit is subtracted from it"""
    exact: bool = False
    """ablate the 10 pairs of largest estimated effect, and attribute --next in the frozen model,
    where contributions add up exactly"""
    compare: Annotated[str | None, arg(metavar="TEXT")] = None
    """another text: features of which one has more"""
    parse_special: bool = False
    """find special tokens where the text spells them"""


def run(args: Args) -> int:
    """Read the text, print what was asked for."""
    from saelab import prompting

    text = _text(args)
    dtype = args.model_dtype
    bench = prompting.open(args.run, args.model, args.cache, device=args.place, dtype=dtype)
    reading = prompting.read(bench, text, args.parse_special, args.estimate)
    asked = _features(args.features, bench.sae.n_features)
    fields = {
        "run": str(args.run),
        "hook": bench.sae.origin.hook,
        "target": bench.sae.origin.target,
        "by": args.by,
        "estimate": args.estimate,
        "tokens": _tokens(reading),
        "features": _listed(args, reading),
        "traces": _traces(reading, asked),
        "errors": _errors(bench, reading),
        "exact": _exact(bench, reading) if args.exact else None,
        "attribution": _attribution(args, bench, reading),
        "comparison": _comparison(args, bench, reading),
    }
    result = document("prompt", args.seed, **fields)
    show(result, args.json, prompt_text.text(result, args.token))
    return 0


def _text(args: Args) -> str:
    """The text that is named. Raises UsageError for none, and for two."""
    if (args.text is None) == (args.file is None):
        raise UsageError(
            'give one text: saelab prompt RUN "text", or saelab prompt RUN --file FILE'
        )
    if args.against is not None and args.next is None:
        raise UsageError("--against is subtracted from a next token: name that with --next")
    if args.file is None:
        assert args.text is not None
        return args.text
    try:
        return args.file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{args.file} cannot be read as UTF-8 text: {error}") from None


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


def _listed(args: Args, reading: "Reading") -> list[dict[str, Any]]:
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


def _attribution(args: Args, bench: "Bench", reading: "Reading") -> dict[str, Any] | None:
    if args.next is None:
        return None
    from saelab import prompting

    parts = prompting.attribute(bench, reading, args.next, args.against, args.exact)
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


def _comparison(args: Args, bench: "Bench", reading: "Reading") -> dict[str, Any] | None:
    if args.compare is None:
        return None
    from saelab import prompting
    from saelab.analysis import prompts
    from saelab.analysis.prompts.comparing import differing

    other = prompting.read(bench, args.compare, args.parse_special, args.estimate)
    first = differing(reading.prompt.tokens.tolist(), other.prompt.tokens.tolist())
    both = prompts.compare(reading.table, other.table, args.by)
    columns = zip(*(column.tolist() for column in both), strict=True)
    rows = [dict(zip(both._fields, one, strict=True)) for one in columns][: args.top or ONE]
    return {"tokens": _tokens(other), "differs_at": first, "features": rows}
