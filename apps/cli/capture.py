"""Run a model over text and write an activation cache for one or more hook points; or cache one's
own arrays.

    saelab capture --hook blocks.2.hook_out --tokens 2M --out caches/a
    saelab capture --arrays acts.npy --ids tokens.npy --out caches/mine
    saelab capture --check runs/demo
    torchrun --nproc-per-node 4 --no-python saelab capture --bytes 2TB --shard-mb 1024 ...
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from saelab import ranks
from saelab.device import quick_dtype
from saelab.errors import UsageError
from saelab.ranges import LARGEST, Bytes, Count, OrNone, Range, Several

from . import capture_check, capture_estimate
from .capture_summary import summary
from .common import Folder, OfModel, document, show, unsaid
from .progress import bar

if TYPE_CHECKING:
    from saelab.activations.from_text import FromText
    from saelab.activations.source import Source
    from saelab.activations.text import Text

UNCHECKED = "hook arrays ids gradients dry_run bytes shard_mb".split()  # --check says by itself
TOKENS = 2_000_000  # positions, where nobody says how many


@dataclass(frozen=True)
class Args(OfModel):
    """Options of `saelab capture`."""

    model: str = "bundled"
    """bundled, a folder in Hugging Face layout, or a hub name"""
    text: str = "stdlib"
    """stdlib, bundled-mix, a file or folder (plain text, JSON, JSON lines, CSV, TSV, Parquet, each
    compressed or not, or what `save_to_disk` wrote), or a hub dataset"""
    hook: UseAppendAction[tuple[str, ...]] = ()
    """hook point; may be given several times"""
    arrays: Folder = None
    """one's own activations instead of a model's: a .npy file, [N, D] or [C, T, D], or a
    .safetensors file with an array per hook; all of their rows are taken"""
    ids: Folder = None
    """with --arrays: a .safetensors file with any of tokens, owners (document of each row or
    context) and counted, or a .npy file of tokens"""
    tokens: Annotated[Count | None, unsaid] = None
    """positions to cache, such as 2000000, 500k or 2M; about 5% are held out (default: 2M, or as
    many as --bytes holds)"""
    bytes: Annotated[Bytes | None, Range(1, whole=True), unsaid] = None
    """size of all shards together, such as 500MB, 2GB or 1TB: the cache ends before it, with both
    splits (default: what --tokens take)"""
    held_out: Annotated[OrNone, arg(help_behavior_hint="")] = 0
    """of these, positions to hold out, of as many documents as it takes (default: as the documents
    fall)"""
    out: Path = Path("cache")
    """folder of the cache"""
    context: Annotated[Several | None, unsaid] = None
    """positions per context (default: the model's, at most 1024; one-per-context: the longest of
    the first 1000 documents)"""
    pack: Literal["documents", "one-per-context"] = "documents"
    """documents: joined and cut into full contexts; one-per-context: each document alone, the rest
    padding that does not count"""
    gradients: bool = False
    """also cache the loss's gradient at each hook point"""
    dtype: Literal["float16", "bfloat16", "float32", "int8"] = "float16"
    """dtype on disk; int8 with a scale for each token is half of float16"""
    shard_mb: Annotated[int | None, Range(1, 4096, whole=True), unsaid] = None
    """megabytes of activations in a shard's file, of which three are in memory at once (default:
    64)"""
    text_field: str = "text"
    """field or column of records that holds the text"""
    strict: bool = False
    """refuse a text of which records (without a text) or files (that cannot be read) would be left
    out"""
    parse_special: bool = False
    """read special and other added tokens, such as <|endoftext|>, where the text spells them; by
    itself all text is text"""
    bos: Annotated[str | None, unsaid] = None
    """id of the token that starts each context, or none (default: the tokenizer's BOS, or its
    end-of-text token where it has no BOS)"""
    uncounted: Annotated[Literal["special"] | None, unsaid] = None
    """special: tokens that stand for no text do not count, as position 0 never does"""
    dry_run: bool = False
    """print bytes, seconds, peak memory and the first context; write nothing"""
    check: Folder = None
    """print instead what each dtype adds to the FVU and cross-entropy of this run's SAE; write
    nothing"""
    cache: Folder = None
    """with --check: where the run's cache lies now (default: where the run says)"""

    @property
    def n_tokens(self) -> int:
        """Positions that are asked for, or at most."""
        unsaid = TOKENS if self.bytes is None else LARGEST
        return self.tokens or unsaid


def run(args: Args) -> int:
    """Capture with a progress bar on stderr; print what was written."""
    if args.check is not None:
        return _check(args, args.check)
    if args.cache is not None:
        raise UsageError("--cache goes with --check: a capture writes to --out")
    if args.dry_run:
        if args.arrays is not None:
            raise UsageError("--dry-run times a model: --arrays has none")
        return capture_estimate.run(_source(args), args.seed, args.json)
    with ranks.joined(remedy="repeat the command to resume"):
        return _capture(args)


def _capture(args: Args) -> int:
    source = _source(args)
    from saelab.activations import Cache

    started = time.perf_counter()
    with bar(source.plan.n_tokens, "token") as shown:
        cache = Cache.write(args.out, source, shown.to)
    if ranks.rank():
        return 0
    result = document(
        "capture",
        args.seed,
        cache=str(args.out),
        hooks=cache.hooks,
        tokens={split: cache.n_tokens(split) for split in ("train", "held_out")},
        bytes=sum(shard["bytes"] for shard in cache.manifest["shards"]),
        positions=sum(shard["contexts"] for shard in cache.manifest["shards"]) * cache.context,
        seconds=round(time.perf_counter() - started, 1),
        already_there=not shown.n,
        cut=cache.manifest.get("cut", 0),
        skipped=cache.manifest.get("skipped", {}),
        outliers=capture_check.outliers_of(cache),
    )
    show(result, args.json, summary(result, source.plan.n_tokens))
    return 0


def _check(args: Args, folder: Path) -> int:
    if given := [name for name in UNCHECKED if getattr(args, name)]:
        raise UsageError(
            f"--check reads the model, hook and text of {folder}: --{given[0].replace('_', '-')} "
            "does not go with it"
        )
    return capture_check.run(
        folder,
        None if args.model == "bundled" else args.model,
        args.cache,
        place={"device": args.place, "dtype": args.model_dtype or "float32"},
        n_tokens=args.n_tokens,
        seed=args.seed,
        as_json=args.json,
    )


def _source(args: Args) -> Any:
    """What fills the cache, in the shards that are asked for."""
    source = _of_text(args) if args.arrays is None else _of_arrays(args)
    if args.shard_mb:
        source.plan = source.plan.in_shards_of(args.shard_mb * 10**6)
    if args.bytes:
        source.plan = source.plan.within(args.bytes)
    return source


def _of_text(args: Args) -> "FromText":
    from saelab import models

    if args.ids is not None:
        raise UsageError("--ids goes with --arrays: a text has its own tokens")
    if not args.hook:
        raise UsageError("no hook named: --hook NAME, for example --hook blocks.2.hook_resid_post")
    n_tokens = args.n_tokens
    if args.held_out >= n_tokens:
        raise UsageError(
            f"held_out={args.held_out} of tokens={n_tokens} leaves none to train on: give fewer"
        )
    text = _checked(args)
    dtype = args.model_dtype or ("float32" if args.gradients else quick_dtype(args.place))
    model = models.load(args.model, args.place, dtype=dtype)
    if model.unread:
        unread = ", ".join(model.unread)
        print(f"left unread, the model has no place for them: {unread}", file=sys.stderr)
    from saelab.activations.from_text import from_text

    return from_text(
        model,
        text,
        args.hook,
        n_tokens,
        context=args.context,
        n_held_out=args.held_out,
        gradients=args.gradients,
        dtype=args.dtype,
        pack=args.pack,
        parse_special=args.parse_special,
        bos=args.bos,
        uncounted=args.uncounted or "",
    )


def _checked(args: Args) -> "Text":
    """The text, after all that can be wrong with it, with the model's name and with its tokenizer:
    this takes moments, reading weights may take minutes."""
    from saelab.models import loading, tokens

    located = loading.locate(args.model)  # before torch is imported
    from saelab.activations import manifest
    from saelab.activations.text import Text

    manifest.check_place(args.out)
    text = Text(args.text, args.text_field, args.strict, args.seed)
    _ = text.split
    tokens.bounds(loading.tokenizer_of(located), args.bos)
    return text


def _of_arrays(args: Args) -> "Source":
    from saelab.activations.from_arrays import from_arrays, read

    if args.parse_special or args.strict or args.bos is not None or args.uncounted is not None:
        raise UsageError(
            "--parse-special, --strict, --bos and --uncounted are of texts: --arrays has its ids"
        )

    if args.bytes is not None:
        raise UsageError("--bytes is of texts: all rows of --arrays are taken")
    if args.gradients:
        raise UsageError("--gradients need a model: --arrays has none")
    assert args.arrays is not None
    arrays = read(args.arrays, args.hook)
    ids = None if args.ids is None else read(args.ids, name="tokens")
    return from_arrays(arrays, ids, context=args.context, dtype=args.dtype, text=args.arrays.name)
