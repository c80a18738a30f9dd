"""`saelab capture --for RUN`: the cache that a run's SAE lacks, of what it reads (and explains), in
contexts such as those of its training.

    saelab capture --for runs/theirs
    saelab capture --for runs/theirs --model models/gpt2 --text mine/ --tokens 500k
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saelab import joint
from saelab.errors import UsageError
from saelab.origin import ARRAYS, SYNTHETIC, Identity, Origin
from saelab.runs import RunFolder, read

from .capture_options import Args

if TYPE_CHECKING:
    from saelab.activations import Cache
    from saelab.activations.plan import Plan


def filled(args: Args, run: RunFolder) -> tuple[Args, list[str]]:
    """The options with what the run knows wherever the command line says nothing, and in words
    what neither says.

    Raises UsageError for a folder that is no run with an SAE of ours, and for a model or hook that
    nobody names.
    """
    if args.arrays is not None:
        raise UsageError("--for runs the run's model over a text: --arrays needs none")
    _check_run(run)
    origin = run.origin()
    hooks = _hooks(run, origin, args.hook)
    model = args.model or (origin.model and origin.model.name)
    lacking = {"model (--model M)": not model, "hook (--hook H)": not hooks}
    if unnamed := [what for what, is_so in lacking.items() if is_so]:
        raise UsageError(f"{run.path} does not say its {' and '.join(unnamed)}: give what it lacks")
    if model in (SYNTHETIC, ARRAYS):
        raise UsageError(f"{run.path} was trained on {model} activations: no model makes them")
    known = origin.more
    given = replace(
        args,
        model=model,
        hook=hooks,
        text=args.text or _text(known),
        context=args.context or _length(known),
        bos=args.bos or (None if known.get("prepend_bos", True) else "none"),
        uncounted=args.uncounted or ("special" if known.get("exclude_special_tokens") else None),
    )
    return given, list(_assumed(args, known))


def _check_run(run: RunFolder) -> None:
    if run.header.is_file():
        return
    if run.is_unfinished():
        raise UsageError(f"{run.path}: the training has not finished, it has no SAE yet")
    raise UsageError(
        f"{run.path} is no run that could keep a cache: `saelab import {run.path} --out RUN` makes "
        "one of a published SAE"
    )


def _hooks(run: RunFolder, origin: Origin, named: Sequence[str]) -> tuple[str, ...]:
    """What the SAE reads, what it explains if that is another place, and what else is asked for.
    Of an SAE that was trained here the first two are known, and stay. Raises UsageError for an
    imported transcoder of which one is unknown."""
    known = tuple(
        dict.fromkeys(part for hook in origin.hooks if hook for part in joint.parts(hook))
    )
    if not origin.source or joint.SIGN in origin.hook:
        return tuple(dict.fromkeys((*known, *named)))
    if not read(run.header).get("transcoder"):
        return tuple(named) or known[:1]
    places = tuple(named) or known
    if len(places) == 1 and origin.target != origin.hook:
        places = (*places, origin.target)
    if len(places) == 1:
        raise UsageError(
            f"{run.path} is a transcoder: give --hook what it reads, then --hook what it explains"
        )
    return places


def _length(known: Mapping[str, Any]) -> int | None:
    length = known.get("context_size")
    return length if isinstance(length, int) else None


def _text(known: Mapping[str, Any]) -> str | None:
    from saelab.activations.text import is_here

    text = known.get("dataset_path")
    return text if isinstance(text, str) and is_here(text) else None


def _assumed(args: Args, known: Mapping[str, Any]) -> Iterator[str]:
    """What is taken as usual, as nobody says it, or as it cannot be had."""
    if args.context is None and _length(known) is None:
        yield "contexts as long as the model's, at most 1024 (--context)"
    if args.bos is None and "prepend_bos" not in known:
        yield "BOS as the tokenizer has it (--bos)"
    if args.text is None and _text(known) is None:
        trained = known.get("dataset_path")
        why = f": {trained}, which it was trained on, is not here" if trained else ""
        yield f"the text stdlib{why} (--text)"
    left_out = known.get("exclude_special_tokens")
    if isinstance(left_out, list) and args.uncounted is None:
        yield f"no special token counts: its training left out those of the ids {left_out}"
    if any(end is not None for end in known.get("seqpos_slice") or ()):
        yield f"every position but the first: its training read those of {known['seqpos_slice']}"


def check(run: RunFolder, hooks: Sequence[str], plan: "Plan") -> None:
    """Raise UsageError, before anything is captured, for another model than the run's, and for
    activations of another width."""
    origin, header = run.origin(), read(run.header)
    model = Identity.from_dict(plan.model)
    if origin.model and (field := origin.model.differs(model)):
        raise UsageError(
            f"{run.path} is of the model {origin.model.name}, and {model.name} is another: they "
            f"differ in {field}"
        )
    sizes = {"reads": header["d_model"], "explains": header["d_out"]}
    for (what, due), hook in zip(sizes.items(), _pair(origin, hooks, header), strict=True):
        width = _width(plan, hook)
        if width != due:
            raise UsageError(
                f"{hook} of {model.name} is {width:,} wide, the SAE of {run.path} {what} {due:,}: "
                "it is of another model or place"
            )


def _pair(origin: Origin, hooks: Sequence[str], header: Mapping[str, Any]) -> tuple[str, str]:
    """What the SAE reads and explains, of what is captured."""
    if not origin.source or joint.SIGN in origin.hook:
        return origin.hooks
    return hooks[0], hooks[1] if header.get("transcoder") and len(hooks) > 1 else hooks[0]


def _width(plan: "Plan", hook: str) -> int:
    by_name = {
        name: entry["width"]
        for asked, entry in plan.hooks.items()
        for name in (asked, *entry["aliases"])
    }
    return sum(by_name[part] for part in joint.parts(hook))


def record(run: RunFolder, hooks: Sequence[str], cache: "Cache") -> None:
    """Let a run know its cache, as runs that were trained on one do: where it lies, seen from the
    run, the digest of its manifest, the model that made it, and the places that were read."""
    from saelab.digests import sha256
    from saelab.formats import native
    from saelab.locks import only_writer

    origin, header = run.origin(), read(run.header)
    hook, target = _pair(origin, hooks, header)
    with only_writer(run.path):
        now = replace(
            origin,
            hook=hook,
            target=target,
            model=cache.identity,
            cache=os.path.relpath(cache.path.resolve(), run.path.resolve()),
            cache_hash=sha256(cache.path / "manifest.json"),
        )
        native.rewrite_origin(run.sae, now)
