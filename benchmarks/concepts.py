"""SAEs against label-free dictionaries in how single features tell kinds of Python tokens:
`python -m benchmarks.concepts --cache DIR --work DIR --out benchmarks/results/concepts.json`.

The full form of `saelab reproduce visual-discovery` on a cache that is there already, seed by seed;
what is done so far is in the file after each seed.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

from saelab.evaluation.alignment import Alignment
from saelab.statistics import over_seeds
from training.reproduce import Settings, visual_discovery

NUMBERS = ("precision", "purity", "coverage")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="How dictionaries align with concepts.")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=visual_discovery.FULL.seeds)
    parser.add_argument("--rivals", nargs="+", default=visual_discovery.FULL.rivals)
    args = parser.parse_args()
    plan = visual_discovery.FULL._replace(rivals=tuple(args.rivals))
    settings = Settings(work=args.work)
    done: dict[str, list[Alignment]] = {}
    for aligned in visual_discovery.measured(settings, plan, args.cache, range(args.seeds)):
        for name, one in aligned.items():
            done.setdefault(name, []).append(one)
        result = {**head(plan), **stated(done)}
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def head(plan: visual_discovery.Plan) -> dict[str, Any]:
    """Machine and setting."""
    machine = {
        "processor": "two cores of an AMD EPYC (Zen 4 class), 24 GB, other work beside it",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    return {"machine": machine, "plan": plan._asdict()}


def stated(done: dict[str, list[Alignment]]) -> dict[str, Any]:
    """Means over seeds by dictionary, and the claims."""
    rows = {
        name: {
            number: over_seeds([getattr(one, number).value for one in each]).as_dict()
            for number in NUMBERS
        }
        for name, each in done.items()
    }
    claims = visual_discovery.judged(done)
    n_seeds = len(next(iter(done.values())))
    return {"seeds": n_seeds, "means": rows, "claims": [claim.as_dict() for claim in claims]}


if __name__ == "__main__":
    main()
