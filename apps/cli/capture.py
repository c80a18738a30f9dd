"""Run a model over text and write an activation cache for one or more hook points; or cache one's
own arrays.

    saelab capture --hook blocks.2.hook_out --tokens 2M --out caches/a
    saelab capture --arrays acts.npy --ids tokens.npy --out caches/mine
    saelab capture --model bundled-vision --images photographs/ --hook blocks.4.hook_out
    saelab capture --for runs/theirs
    saelab capture --check runs/demo
    torchrun --nproc-per-node 4 --no-python saelab capture --bytes 2TB --shard-mb 1024 ...
"""

import time
from pathlib import Path

from saelab import ranks
from saelab.errors import UsageError
from saelab.runs import RunFolder

from . import capture_check, capture_estimate, capture_for, capture_source
from .capture_options import Args
from .capture_summary import summary
from .common import document, show
from .progress import bar

# Options that do not go with --check, which says them by itself.
UNCHECKED = "for_ hook images arrays ids gradients dry_run bytes shard_mb".split()


def run(args: Args) -> int:
    """Capture with a progress bar on stderr; print what was written."""
    if args.check is not None:
        return _check(args, args.check)
    if args.cache is not None:
        raise UsageError("--cache goes with --check: a capture writes to --out")
    assumed: list[str] = []
    if args.for_ is not None:
        args, assumed = capture_for.filled(args, RunFolder(args.for_))
    if args.dry_run:
        if args.images is not None:
            raise UsageError("--dry-run times a model of text: --images has none")
        if args.arrays is not None:
            raise UsageError("--dry-run times a model: --arrays has none")
        return capture_estimate.run(capture_source.of(args), args.seed, args.json)
    with ranks.joined(remedy="repeat the command to resume"):
        return _capture(args, assumed)


def _capture(args: Args, assumed: list[str]) -> int:
    """assumed: what is taken as usual, as neither the command line nor a run says it."""
    source = capture_source.of(args)
    run = None if args.for_ is None else RunFolder(args.for_)
    if run is not None:
        capture_for.check(run, args.hook, source.plan)
    from saelab.activations import Cache

    started = time.perf_counter()
    with bar(source.plan.n_tokens, "token") as shown:
        cache = Cache.write(args.place_of_cache, source, shown.to)
    if ranks.rank():
        return 0
    if run is not None:
        capture_for.record(run, args.hook, cache)
    result = document(
        "capture",
        args.seed,
        cache=str(args.place_of_cache),
        run=None if run is None else str(args.for_),
        assumed=assumed,
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
        option = given[0].strip("_").replace("_", "-")
        raise UsageError(
            f"--check reads the model, hook and text of {folder}: --{option} does not go with it"
        )
    return capture_check.run(
        folder,
        args.model,
        args.cache,
        place={"device": args.place, "dtype": args.model_dtype or "float32"},
        n_tokens=args.n_tokens,
        seed=args.seed,
        as_json=args.json,
    )
