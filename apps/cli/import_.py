"""Take a published SAE over into a run folder: every convention of its form applied, with where it
comes from and what its files do not say.

    saelab import gemma-scope/layer_12/width_16k/average_l0_82 --out runs/theirs --model M
    saelab import hub:org/repo/path --out runs/theirs --hook blocks.3.hook_resid_post
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from .common import Common, Folder, Place, document, show

if TYPE_CHECKING:
    from saelab import SAE, CrossLayerTranscoder

Word = Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")]


@dataclass(frozen=True)
class Args(Common):
    """Options of `saelab import`."""

    source: Positional[str] = ""
    """folder or file, or hub:org/repo/path"""
    out: Path = Path("imported")
    """run folder to make"""
    model: Place = None
    """bundled, a folder or a hub name: the model that it belongs to (default: as its files say)"""
    hook: Word = None
    """hook point that it reads (default: as its files say)"""
    target: Word = None
    """hook point that a transcoder explains (default: as its files say)"""
    format: Word = None
    """name of its form, where two know it"""
    select: Word = None
    """which SAE of a folder of many, such as layers.3/seed0"""
    check: Folder = None
    """activation cache of its model and hook: measure there what a trained SAE must show, and say
    which mistake would explain it if it does not"""


def run(args: Args) -> int:
    """Read, write the run, print what it is."""
    from saelab.errors import UsageError
    from saelab.files import undone
    from saelab.formats.imported import imported, unknown
    from saelab.locks import only_writer
    from saelab.runs import RunFolder

    if not args.source:
        raise UsageError("nothing to import is named: saelab import SOURCE --out RUN")
    source = f"{args.source}/{args.select}" if args.select else args.source
    options = {"model": args.model, "hook": args.hook, "target": args.target}
    sae = imported(source, args.format, **options)
    if args.out.is_dir() and any(args.out.iterdir()):
        raise UsageError(f"{args.out} is not empty: choose another --out")
    checked = None if args.check is None else _checked(sae, args.check)
    with undone(args.out) as keep, only_writer(args.out):
        sae.save(RunFolder(args.out).sae)
        keep()
    facts = {**_facts(sae), "unknown": list(unknown(sae)), "check": checked}
    following = RunFolder(args.out).how_to_capture()
    result = document("import", args.seed, run=str(args.out), **facts, next=following)
    show(result, args.json, text(result))
    return 0


def _checked(sae: "SAE | CrossLayerTranscoder", folder: Path) -> dict[str, Any]:
    """What held-out tokens of a cache show of it. Raises UsageError for one of several layers."""
    from saelab import SAE
    from saelab.activations import Cache
    from saelab.errors import UsageError
    from saelab.evaluation import plausibility

    if not isinstance(sae, SAE):
        raise UsageError(f"--check is for SAEs, this is a {sae!r}: import it, then saelab eval")
    return plausibility.on_cache(sae, Cache(folder))._asdict()


def _facts(sae: "SAE | CrossLayerTranscoder") -> dict[str, Any]:
    origin = sae.origin
    return {
        "source": origin.source,
        "format": origin.format,
        "file_hash": origin.file_hash,
        "d_model": sae.d_model,
        "n_features": sae.n_features,
        "d_out": len(sae.b_dec),
        "sparsify": origin.sparsify,
        "k": origin.k,
        "transcoder": sae.transcoder,
        "model": origin.model.name if origin.model else None,
        "hook": origin.hook or None,
        "target": origin.target or None,
        "applied": list(origin.more.get("applied", [])),
    }


def text(result: dict[str, Any]) -> str:
    """The result for people."""
    kind = "transcoder" if result["transcoder"] else "SAE"
    sizes = f"{result['d_model']:,} -> {result['n_features']:,} -> {result['d_out']:,}"
    lines = [f"{result['run']}: {kind} ({sizes}), {result['sparsify']}, from {result['format']}"]
    hook, target = result["hook"] or "?", result["target"] or "?"
    place = hook if hook == target else f"{hook} to {target}"
    lines.append(f"  at {place} of {result['model'] or '?'}")
    lines += [f"  applied: {what}" for what in result["applied"]]
    lines += [f"  not known: {what}" for what in result["unknown"]]
    if result["check"] is not None:
        from saelab.evaluation import plausibility

        lines.append(f"  checked: {plausibility.sentence(result['check'])}")
    lines.append(f"next: {result['next']}")
    return "\n".join(lines)
