"""What int8 caches cost: `python -m benchmarks.int8 --read RUN ... --trained RUN ...`.

read: SAEs trained on a float16 cache. Each reads activations in float32, and rounded: as int8
caches do it, and in three other ways. trained: SAEs of the same seeds in the same order that were
trained on an int8 cache of the same text; they are held against the others on float32 activations.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import saelab
from saelab.activations.stored import round_trip
from saelab.evaluation import rounding
from saelab.statistics import over_seeds

BLOCK = 64


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="What int8 caches cost.")
    parser.add_argument("--read", nargs="+", required=True)
    parser.add_argument("--trained", nargs="*", default=[])
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args()


def in_blocks(x_ND: Tensor) -> Tensor:
    """int8 with a scale per token and BLOCK dimensions."""
    return round_trip(x_ND.unflatten(-1, (-1, BLOCK)), "int8").flatten(-2)


def clipped(x_ND: Tensor) -> Tensor:
    """int8 with a scale per token of 0.7 times its largest number, beyond which numbers are
    clipped."""
    most_N1 = 0.7 * x_ND.abs().amax(-1, keepdim=True)
    return round_trip(x_ND.clamp(-most_N1, most_N1), "int8")


def centred(mean_D: Tensor) -> rounding.Round:
    """int8 of what is left of x without the mean of the training tokens."""
    return lambda x_ND: round_trip(x_ND - mean_D, "int8") + mean_D


def checked(run: str) -> dict[str, Any]:
    """What ways of rounding add to a run's SAE."""
    _, sae, cache, model = saelab.open(run)
    moments = cache.moments(sae.origin.hook)
    ways = rounding.ROUNDED | {
        f"int8, blocks of {BLOCK}": in_blocks,
        "int8, clipped": clipped,
        "int8, centred": centred((moments.sum / moments.n).float()),
    }
    fields = rounding.check(sae, cache, model, ways=ways)
    fields |= {"run": Path(run).name, "n_features": sae.n_features, "d_model": sae.d_model}
    return fields | {"sparsify": sae.origin.sparsify, "k": sae.origin.k, "seed": sae.origin.seed}


def main() -> None:
    """Measure, print, and write where asked."""
    args = arguments()
    read, trained = ([checked(run) for run in runs] for runs in (args.read, args.trained))
    result: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "read": read,
        "share_over_seeds": {
            way: over_seeds([one["dtypes"][way]["fvu_share"]["value"] for one in read]).as_dict()
            for way in read[0]["dtypes"]
        },
    }
    if trained:
        pairs = zip(trained, read, strict=True)
        added = [mine["fvu"]["value"] / other["fvu"]["value"] - 1 for mine, other in pairs]
        result["trained"] = [{"run": one["run"], "fvu": one["fvu"]} for one in trained]
        result["trained_share_over_seeds"] = over_seeds(added, null=0.0).as_dict()
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
