"""Continue a text with features of a run's SAE scaled, clamped, ablated or added, beside the
original, random directions of the same length and other features that fire about as often.

    saelab steer runs/demo --feature 17 --clamp 40 --text "import "
    saelab steer runs/demo --feature 7,12 --ablate --text "def f(" --loss 10k
    saelab steer runs/demo --feature 7 --ablate --prompts gifts.csv

The SAE's error stays; each edit moves the activation by (new value - value) x W_dec.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from saelab.errors import UsageError
from saelab.ranges import Count, OrNone, Weight

from . import prompt_source, steer_task
from .common import OfCache, cell, document, show
from .prompt_text import token

if TYPE_CHECKING:
    from saelab.analysis.steering import Edit
    from saelab.prompting import Bench, Steering

Run = Annotated[Positional[Path], arg(metavar="RUN")]
Numbers = Annotated[str, arg(metavar="NUMBERS")]
Text = Annotated[str | None, arg(metavar="TEXT")]
MODES = ("scale", "clamp", "add")


@dataclass(frozen=True)
class Args(OfCache):
    """Options of `saelab steer`."""

    run: Run = Path()
    """run folder"""
    feature: Numbers = ""
    """the feature, or several: 7,12"""
    text: Text = None
    """text to continue"""
    prompts: prompt_source.Prompts = None
    """file of prompts with answers (CSV, JSON, JSON lines), on whose metric the effect is measured,
    beside 20 random directions"""
    task: prompt_source.Task = None
    """likewise of held-out prompts of ioi, greater-than, docstring, induction, agreement"""
    n: Count = 100
    """prompts taken of a file or task, at most"""
    scale: Numbers = ""
    """times which each activation is taken; one number for all features, or one each: 2,0.5"""
    clamp: Numbers = ""
    """what each activation is set to, on every token"""
    add: Numbers = ""
    """what is added to each activation, on every token"""
    ablate: bool = False
    """set each activation to 0"""
    at: Numbers = ""
    """positions to edit, such as 3,5 (default: all but the first, new tokens too)"""
    new: Count = 30
    """tokens to write"""
    samples: Count = 1
    """continuations of each kind"""
    temperature: Weight = 0.0
    """0: the most probable token; above, tokens are drawn, with the same random numbers in each
    kind"""
    controls: OrNone = 2
    """random directions, and as many other features, to steer along as far"""
    loss: OrNone = 0
    """held-out tokens on which the change of the loss is measured; 0: none"""
    parse_special: bool = False
    """find special tokens where the text spells them"""


def run(args: Args) -> int:
    """Steer, print the continuations and what they cost."""
    from saelab import prompting

    prompt_source.check(args.task, args.prompts)
    of_task = args.prompts is not None or args.task is not None
    if args.text is None and not of_task:
        raise UsageError(
            'no text to continue: saelab steer RUN --feature N --scale 2 --text "text"; or measure '
            "on prompts with --prompts FILE or --task TASK"
        )
    edits = _edits(args)
    dtype = args.model_dtype
    bench = prompting.open(args.run, args.model, args.cache, device=args.place, dtype=dtype)
    if args.loss and (bench.cache is None or args.text is None):
        why = bench.no_cache if bench.cache is None else "beside a text to continue; give --text"
        raise UsageError(f"--loss is measured on a cache's held-out text: {why}")
    fields = {"run": str(args.run), "edits": [edit._asdict() for edit in edits]}
    if of_task:
        fields["task"] = steer_task.measured(args, bench, edits)
    if args.text is not None:
        fields |= {"text": args.text, **fields_of(bench, _steered(args, bench, edits))}
    result = document("steer", args.seed, **fields)
    show(result, args.json, text(result))
    return 0


def _steered(args: Args, bench: "Bench", edits: "list[Edit]") -> "Steering":
    """The text continued, beside its controls."""
    from saelab import prompting

    return prompting.steer(
        bench,
        str(args.text),
        edits,
        n=args.new,
        positions=_numbers("at", args.at, int) or None,
        samples=args.samples,
        temperature=args.temperature,
        controls=args.controls,
        loss_tokens=args.loss,
        seed=args.seed,
        parse_special=args.parse_special,
    )


def _edits(args: Args) -> "list[Edit]":
    """The edits that the options say. Raises UsageError for none, for two ways at once, and for
    another number of values than of features."""
    from saelab.analysis.steering import Edit

    features = _numbers("feature", args.feature, int)
    ways = [mode for mode in MODES if getattr(args, mode)] + ["ablate"] * args.ablate
    if not features:
        raise UsageError("no feature named: --feature N, or --feature N,M")
    if len(ways) != 1:
        named = ", ".join(f"--{way}" for way in ways) or "none"
        raise UsageError(f"one of --scale, --clamp, --add and --ablate says how; named: {named}")
    if ways == ["ablate"]:
        return [Edit(feature, "ablate") for feature in features]
    values = _numbers(ways[0], getattr(args, ways[0]), float)
    if len(values) == 1:
        values = values * len(features)
    if len(values) != len(features):
        raise UsageError(
            f"--{ways[0]} has {len(values)} values for {len(features)} features: one for all, or "
            "one each"
        )
    return [Edit(f, ways[0], value) for f, value in zip(features, values, strict=True)]  # type: ignore[arg-type]


def _numbers(name: str, words: str, kind: type) -> list[Any]:
    """The numbers of an option. Raises UsageError for what is none."""
    try:
        return [kind(word) for word in words.replace(" ", "").split(",") if word]
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise UsageError(f"--{name} {words}: give {what}, such as 7,12") from None


def fields_of(bench: "Bench", steered: "Steering") -> dict[str, Any]:
    """What the document says of a text that is steered."""
    from saelab.analysis.prompts.text import spelled

    def written(rows: Any) -> list[str]:
        return ["".join(spelled(bench.model, ids)) for ids in rows.tolist()]

    beside, loss = steered.beside, steered.loss
    return {
        "original": written(beside.original),
        "steered": written(beside.steered),
        "random": [written(rows) for rows in beside.random],
        "others": [
            {"features": features, "texts": written(rows)}
            for features, rows in zip(steered.others, beside.others, strict=True)
        ],
        "loss": loss
        and {
            "clean": loss.clean.as_dict(),
            "changes": {name: change.as_dict() for name, change in loss.changes.items()},
            "predictions": loss.n_predictions,
            "documents": loss.n_documents,
        },
    }


def text(result: dict[str, Any]) -> str:
    """The result for people."""
    parts = [steer_task.text(result, _said(result["edits"]))] if "task" in result else []
    return "\n\n".join([*parts, *([_continued(result)] if "text" in result else [])])


def _continued(result: dict[str, Any]) -> str:
    lines = [f"{result['run']}, after {token(result['text'])}"]
    lines += _block("original", result["original"])
    lines += _block(f"steered ({_said(result['edits'])})", result["steered"])
    for number, texts in enumerate(result["random"], start=1):
        lines += _block(f"random direction {number}, as long", texts)
    for other in result["others"]:
        named = ", ".join(map(str, other["features"]))
        lines += _block(f"along feature {named} instead, as far", other["texts"])
    if _without_effect(result):
        lines += [
            "",
            "all the same: a feature is scaled or ablated only where it fires, which "
            "`saelab prompt` tells; --clamp and --add act on every token",
        ]
    if loss := result["loss"]:
        lines += [
            "",
            f"loss on {loss['predictions']:,} held-out tokens of {loss['documents']} documents, in "
            f"nats: {cell(loss['clean'])}; changed by",
        ]
        lines += [f"  {name:10} {cell(change)}" for name, change in loss["changes"].items()]
    return "\n".join(lines)


def _without_effect(result: dict[str, Any]) -> bool:
    """Whether edits that act only where a feature fires left every continuation as it was."""
    others = [texts for other in result["others"] for texts in other["texts"]]
    written = [*result["steered"], *(one for texts in result["random"] for one in texts), *others]
    limited = all(edit["mode"] in ("scale", "ablate") for edit in result["edits"])
    return limited and set(written) <= set(result["original"])


def _said(edits: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{edit['mode']} {edit['feature']}"
        + ("" if edit["mode"] == "ablate" else f" {edit['value']:g}")
        for edit in edits
    )


def _block(title: str, texts: list[str]) -> list[str]:
    return ["", title, *(f"  {token(text)}" for text in texts)]
