"""SAEs against label-free dictionaries in how single features tell concepts that nobody told them:

    python -m benchmarks.concepts --cache DIR --work DIR --machine WORDS \
        --out benchmarks/results/concepts.json

The full form of `saelab reproduce visual-discovery` on a cache that is there already, seed by seed:
kinds of Python tokens in a cache of text, what patches show in one of labelled images. What is done
so far is in the file after each seed.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from saelab import models
from saelab.activations import Cache
from saelab.activations.seen import Looking, is_of_images
from saelab.evaluation import concepts, probing
from saelab.evaluation.alignment import Alignment
from saelab.evaluation.concepts import Positions
from saelab.sparsify import title
from saelab.statistics import over_seeds
from training.reproduce import Settings, data, visual_discovery
from training.reproduce.visual_discovery import FULL, SAES, Plan

NUMBERS = ("precision", "purity", "coverage")
SPLITS = ("train", "held_out")
Done = Mapping[str, Sequence[Alignment]]


def main() -> None:
    """Measure and write."""
    args = asked()
    few = tuple(title(name) for name in args.few)
    sizes = {"seeds": args.seeds, "features": args.features, "tokens": args.tokens, "k": args.k}
    plan = FULL._replace(**sizes, positions=tuple(args.positions), rivals=tuple(args.rivals))
    plan = plan._replace(few=tuple(args.few), few_seeds=args.few_seeds)
    cache = Cache(args.cache)
    hook, splits = args.hook or next(iter(cache.hooks)), labelled(cache, plan, args)
    settings = Settings(work=args.work, progress=said)
    done: dict[str, list[Alignment]] = {}
    by_seed = visual_discovery.measured(settings, plan, cache, splits, range(args.seeds), hook)
    for number, aligned in enumerate(by_seed):
        for name, one in aligned.items():
            done.setdefault(name, []).append(one)
        if number == 0:
            shapes = spent(settings, plan, cache, hook, splits[1])
        result = {**head(args, plan, cache, hook), "dictionaries": shapes, **stated(done)}
        result["few"] = {"names": few, "seeds": args.few_seeds}
        result["cpu_seconds"] = round(time.process_time())
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def said(what: str, done: int, total: int) -> None:
    """A line for each dictionary, and for each training's end."""
    if not what.startswith("train") or done == total:
        print(f"{time.process_time():.0f} s: {what}", flush=True)


def asked() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="How dictionaries align with concepts.")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--hook", help="default: the cache's first")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--machine", default="", help="what it ran on, in words")
    parser.add_argument("--seeds", type=int, default=FULL.seeds)
    parser.add_argument("--features", type=int, default=FULL.features)
    parser.add_argument("--tokens", type=int, default=FULL.tokens, help="training tokens of SAEs")
    parser.add_argument("--k", type=int, default=FULL.k, help="pairs per token")
    parser.add_argument("--positions", type=int, nargs=2, default=FULL.positions)
    parser.add_argument("--rivals", nargs="+", default=FULL.rivals)
    parser.add_argument("--few", nargs="*", default=[], help="rivals of fewer seeds")
    parser.add_argument("--few-seeds", type=int, default=FULL.few_seeds)
    return parser.parse_args()


def labelled(cache: Cache, plan: Plan, args: argparse.Namespace) -> list[Positions]:
    """Positions with concepts, to choose features on and to score them."""
    model, hook = models.load(cache.identity.name), args.hook or next(iter(cache.hooks))
    sizes = zip(SPLITS, plan.positions, strict=True)
    if is_of_images(cache):
        looking = Looking(cache, model)
        return [concepts.of_images(cache, hook, looking, split, n) for split, n in sizes]
    return [concepts.of_text(cache, hook, model.tokenizer, split, n) for split, n in sizes]


def spent(
    settings: Settings, plan: Plan, cache: Cache, hook: str, held_out: Positions
) -> dict[str, dict[str, float]]:
    """Features and L0 of the first seed's dictionaries."""
    wanted = visual_discovery.configs(plan, str(cache.path), cache.width(hook), hook)
    rows = {}
    for name, config in wanted.items():
        sae = data.sae(settings, data.run_folder(settings, config))
        codes = probing.latents(sae, held_out.x[:2000])
        l0 = round(codes.count_nonzero() / codes.shape[0], 2)
        rows[name] = {"features": sae.n_features, "l0": l0}
    return rows


def head(args: argparse.Namespace, plan: Plan, cache: Cache, hook: str) -> dict[str, Any]:
    """Machine and setting."""
    machine = {
        "processor": args.machine,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    of = {"model": cache.identity.name, "hook": hook, "text": cache.plan.text}
    words = [word if "/" not in word or ".json" in word else "DIR" for word in sys.argv[1:]]
    command = "python -m benchmarks.concepts " + " ".join(words)
    return {"machine": machine, "of": of, "plan": plan._asdict(), "command": command}


def stated(done: Done) -> dict[str, Any]:
    """Means over seeds by dictionary, paired differences, and the claims."""
    rows = {
        name: {number: means(each, number) for number in NUMBERS} for name, each in done.items()
    }
    for name in SAES:
        nulls = [one.precision.null or 0.0 for one in done[name]]
        rows[name]["precision"]["null"] = sum(nulls) / len(nulls)
    rivals = [name for name in done if name not in SAES]
    paired = {
        name: {
            rival: {number: difference(done, name, rival, number) for number in NUMBERS}
            for rival in rivals
        }
        for name in SAES
    }
    claims = [claim.as_dict() for claim in visual_discovery.judged(done)]
    n_concepts = len(done["TopK"][0].concepts)
    seeds = {name: len(each) for name, each in done.items()}
    return {
        "n_concepts": n_concepts,
        "seeds": seeds,
        "means": rows,
        "differences": paired,
        "claims": claims,
    }


def means(each: Sequence[Alignment], number: str) -> dict:
    """Mean over seeds."""
    return over_seeds([getattr(one, number).value for one in each]).as_dict()


def difference(done: Done, name: str, rival: str, number: str) -> dict:
    """A dictionary's number less a rival's, of the seeds that both have."""
    values = [[getattr(one, number).value for one in done[which]] for which in (name, rival)]
    return over_seeds([a - b for a, b in zip(*values, strict=False)]).as_dict()


if __name__ == "__main__":
    main()
