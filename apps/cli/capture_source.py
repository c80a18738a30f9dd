"""What fills the cache that the options of `saelab capture` ask for."""

import sys
from typing import TYPE_CHECKING, Any

from saelab.device import quick_dtype
from saelab.errors import UsageError

from .capture_options import Args

if TYPE_CHECKING:
    from saelab.activations.from_text import FromText
    from saelab.activations.source import Source
    from saelab.activations.text import Text


MODEL, VISION, TEXT = "bundled", "bundled-vision", "stdlib"  # where nobody says which


def of(args: Args) -> Any:
    """What fills the cache, in the shards that are asked for."""
    if args.images is not None:
        source = _of_images(args)
    else:
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
    model = models.load(args.model or MODEL, args.place, dtype=dtype)
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
        uncounted="special" if args.uncounted == "special" else "",
    )


def _of_images(args: Args) -> "Source":
    given = {
        "--arrays": args.arrays,
        "--text": args.text,
        "--ids": args.ids,
        "--context": args.context,
        "--bos": args.bos,
        "--uncounted": args.uncounted,
        "--gradients": args.gradients or None,
        "--parse-special": args.parse_special or None,
        "--bytes": args.bytes,
        "--held-out": args.held_out or None,
    }
    if unfit := [name for name, value in given.items() if value is not None]:
        raise UsageError(f"{unfit[0]} does not go with --images: an image is a context by itself")
    from saelab import models
    from saelab.activations import manifest
    from saelab.activations.from_images import from_images

    manifest.check_place(args.place_of_cache)
    dtype = args.model_dtype or quick_dtype(args.place)
    model = models.load(args.model or VISION, args.place, dtype=dtype)
    return from_images(
        model,
        args.images or "",
        args.hook,
        args.n_tokens,
        dtype=args.dtype,
        column=args.image_column,
        strict=args.strict,
        seed=args.seed,
    )


def _checked(args: Args) -> "Text":
    """The text, after all that can be wrong with it, with the model's name and with its tokenizer:
    this takes moments, reading weights may take minutes."""
    from saelab.models import loading, tokens

    located = loading.locate(args.model or MODEL)  # before torch is imported
    from saelab.activations import manifest
    from saelab.activations.text import Text

    manifest.check_place(args.place_of_cache)
    text = Text(args.text or TEXT, args.text_field, args.strict, args.seed)
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
