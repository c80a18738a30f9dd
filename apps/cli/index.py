"""Build the feature index of a run: what every feature fires on, how strongly, what it writes. The browser reads it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from apps.cli.common import Common, Count, document, show, upto
from saelab.errors import UsageError

if TYPE_CHECKING:
    from saelab import SAE


@dataclass(frozen=True)
class Args(Common):
    """Options of `saelab index`."""

    run: Positional[Path] = Path()
    """run folder"""
    compare: tuple[Path, ...] = ()
    """other runs at the same hook: which of this SAE's features did they find too?"""
    tokens: Count = 500_000
    """tokens to read, at most"""
    split: str = "train"
    """part of the cache to read: train or held_out"""
    cache: Path | None = None
    """activation cache (default: the one the run was trained on)"""


def run(args: Args) -> int:
    """Write features.db into the run; print what it holds."""
    from tqdm import tqdm

    from saelab import SAE, models
    from saelab.activations import Cache
    from saelab.features.index import build

    if args.split not in ("train", "held_out"):
        raise UsageError(f"no split {args.split!r}; there are train and held_out")
    sae = SAE.load(args.run)
    others = [(folder, SAE.load(folder)) for folder in args.compare]
    named = [(_name(folder, other, sae), other) for folder, other in others]
    cache = Cache(args.cache or sae.about["cache"])
    cache.verify()
    cache.check_model(sae.about["model"])
    model = models.load(sae.about["model"]["name"])
    n_tokens = min(args.tokens, cache.n_tokens(args.split))
    with tqdm(total=n_tokens, unit="token", file=sys.stderr, disable=None) as bar:
        summary = build(
            sae,
            cache,
            sae.about["hook"],
            args.run / "features.db",
            tokenizer=model.tokenizer,
            model=model,
            others=named,
            n_tokens=n_tokens,
            split=args.split,
            seed=args.seed,
            progress=upto(bar),
        )
    result = document("index", args.seed, **{key: value for key, value in summary.items() if key != "seed"})
    show(result, args.json, text(summary, args.run))
    return 0


def _name(folder: Path, other: "SAE", sae: "SAE") -> str:
    """What the pages call another SAE: its seed where that tells the two apart. Raises UsageError for another hook or model."""
    for key, value in (("hook", sae.about["hook"]), ("model", sae.about["model"])):
        if other.about.get(key) != value:
            raise UsageError(f"{folder} was trained at another {key}: {other.about.get(key)}, not {value}")
    seed = other.about.get("seed")
    return f"seed {seed}" if seed != sae.about.get("seed") else folder.resolve().name


def text(summary: dict, run: Path) -> str:
    """The summary for people."""
    lines = [
        f"{summary['n_features']:,} features on {summary['n_tokens']:,} tokens of the {summary['split']} split: "
        f"{summary['dead']:,} did not fire",
        *(
            f"also in {other['name']}: {100 * other['share']:.1f}% of live features (cosine at least {other['threshold']:g}); "
            f"median best cosine {other['median']:.2f}, random directions {other['null']:.2f}"
            for other in summary["others"]
        ),
        f"wrote {run / 'features.db'}; look at it with `saelab browse {run}`",
    ]
    return "\n".join(lines)
