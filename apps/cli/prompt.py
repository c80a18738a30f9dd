"""Say what a run's SAE makes of one's own text: the features of each token, by value, by value
over the usual one, or by estimated effect on the loss; where a next token comes from; two texts
compared.

    saelab prompt runs/demo "import numpy as np"
    saelab prompt runs/demo "def f(self" --next "):" --by effect
    saelab prompt runs/demo --prompts gifts.csv

A special token that the text spells out, such as <|endoftext|>, is text unless --parse-special.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from saelab.errors import UsageError
from saelab.ranges import Count, OrNone

from . import prompt_source, prompt_text
from .common import Folder, OfCache, document, show, unsaid
from .prompt_fields import Asked, fields

if TYPE_CHECKING:
    from saelab.prompting import Bench

Run = Annotated[Positional[Path], arg(metavar="RUN")]
Text = Annotated[Positional[str | None], arg(metavar="[TEXT]")]
Word = Annotated[str | None, arg(metavar="TOKEN")]
Numbers = Annotated[str, arg(metavar="NUMBERS")]


@dataclass(frozen=True)
class Args(OfCache):
    """Options of `saelab prompt`."""

    run: Run = Path()
    """run folder"""
    text: Text = None
    """the text; with --file it is read from there"""
    file: Folder = None
    """file whose text is read"""
    prompts: prompt_source.Prompts = None
    """file of prompts (CSV, JSON, JSON lines): of each its answer's logit, less that of its wrong
    answer, is attributed, and its twin compared, where it has them"""
    task: prompt_source.Task = None
    """likewise of held-out prompts of ioi, greater-than, docstring, induction, agreement"""
    n: Count = 5
    """prompts taken of a file or task, at most"""
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
    """Read the text, or each prompt, and print what was asked for."""
    from saelab import prompting
    from saelab.tasks import files

    one = _one(args)
    dtype = args.model_dtype
    bench = prompting.open(args.run, args.model, args.cache, device=args.place, dtype=dtype)
    if one is not None:
        result = document("prompt", args.seed, **fields(args, bench, one))
        show(result, args.json, prompt_text.text(result, args.token))
        return 0
    texts, several = [], []
    for number, asked in enumerate(_several(args, bench), start=1):
        with files.row_of(args.prompts or str(args.task), number):
            several.append({"text": asked.text, **fields(args, bench, asked)})
        shown = prompt_text.text(several[-1], args.token)
        texts.append(f"prompt {number}: {prompt_text.token(asked.text)}\n{shown}")
    show(document("prompt", args.seed, prompts=several), args.json, "\n\n\n".join(texts))
    return 0


def _one(args: Args) -> Asked | None:
    """The text that is named; None where prompts are. Raises UsageError for none, and for two."""
    prompts = args.prompts is not None or args.task is not None
    if prompts + (args.text is not None) + (args.file is not None) != 1:
        raise UsageError(
            'give one text: saelab prompt RUN "text", or saelab prompt RUN --file FILE; or prompts '
            "with --prompts FILE or --task TASK"
        )
    if prompts:
        prompt_source.check(args.task, args.prompts)
        return None
    if args.against is not None and args.next is None:
        raise UsageError("--against is subtracted from a next token: name that with --next")
    rest = (args.next, args.against, args.compare)
    if args.file is None:
        return Asked(str(args.text), *rest)
    try:
        return Asked(args.file.read_text(encoding="utf-8"), *rest)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{args.file} cannot be read as UTF-8 text: {error}") from None


def _several(args: Args, bench: "Bench") -> list[Asked]:
    """What is asked of each prompt of a file or task; options that are given hold for all."""
    drawn = prompt_source.words(args.task, args.prompts, bench.model, args.n, args.seed)
    return [
        Asked(
            one.clean,
            args.next or next(iter(one.right), None),
            args.against or next(iter(one.wrong if one.right else ()), None),
            args.compare or one.corrupted or None,
        )
        for one in drawn
    ]
