"""Cross-layer transcoders beside transcoders of each layer at equal total L0: held-out FVU of each
layer, and what a training step costs.

    saelab capture --model bundled --text stdlib --tokens 260k --out CACHE \
        --hook blocks.0.mlp.hook_in ... --hook blocks.3.hook_mlp_out
    python benchmarks/cross_layer.py train --cache CACHE --work DIR --seed 0    # and 1, 2
    python benchmarks/cross_layer.py step --cache CACHE --kind clt              # and transcoders
    python benchmarks/cross_layer.py compare --work DIR --out RESULTS.json

All runs of a seed share one pass over the cache: same tokens, same order, same steps. The FVU of a
layer's output is of held-out tokens in inference form. Differences are paired by seed.
"""

import argparse
import json
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import training
from saelab import SAE, CrossLayerTranscoder, joint
from saelab.activations import Cache
from saelab.statistics import over_seeds
from training import sweep
from training.run import Run

HELD_OUT = 10_000
STEPS = 12  # of the timed ones; the first third warms up
HOOK, TARGET = "blocks.*.mlp.hook_in", "blocks.*.hook_mlp_out"


def configs(cache: str, work: Path, seed: int, **fields: Any) -> list[training.Config]:
    """The cross-layer transcoder's configuration, then those of the transcoders."""
    base = training.Config(cache=cache, hook=HOOK, target=TARGET, seed=seed, **fields)
    across = sweep.Sweep(replace(base, clt=True, out=str(work / f"clt-{seed}")), {}).configs()
    return across + sweep.Sweep(replace(base, out=str(work / f"transcoders-{seed}")), {}).configs()


@torch.no_grad()
def fvu(sae: SAE | CrossLayerTranscoder, cache: Cache) -> dict[str, list[float]]:
    """FVU of each output that it explains, and L0, on held-out tokens."""
    hook, target = sae.origin.hooks
    x_BD, y_BE = (
        torch.cat([chunk.x for chunk in cache.counted(name, "held_out", HELD_OUT)])
        for name in (hook, target)
    )
    y_hat_BE, code = sae.reconstruct(x_BD)
    columns = zip(*(t.chunk(len(joint.parts(target)), 1) for t in (y_BE, y_hat_BE)), strict=True)
    missed = [
        float((y - made).square().sum() / (y - y.mean(0)).square().sum()) for y, made in columns
    ]
    return {"fvu": missed, "l0": [float((code.values != 0).sum()) / len(x_BD)]}


def train(args: argparse.Namespace) -> None:
    """Train the runs of one seed and write their held-out FVU."""
    sizes = {"features": args.features, "k": args.k, "tokens": args.tokens, "batch": args.batch}
    runs = configs(args.cache, args.work, args.seed, checkpoint_every=10**6, **sizes)
    started = time.process_time()
    training.train(runs)
    seconds, cache = time.process_time() - started, Cache(args.cache)
    clt, *others = [
        fvu(CrossLayerTranscoder.load(c.out) if c.clt else SAE.load(c.out), cache) for c in runs
    ]
    split = {name: [one for each in others for one in each[name]] for name in ("fvu", "l0")}
    row = {"seed": args.seed, "clt": clt, "transcoders": split, "cpu_seconds": seconds, **sizes}
    (args.work / f"seed-{args.seed}.json").write_text(json.dumps(row))
    print(json.dumps(row))


def step(args: argparse.Namespace) -> None:
    """CPU seconds of a step, and what the process's peak memory grew by, of one kind."""
    sizes = {"features": args.features, "k": args.k, "tokens": args.tokens, "batch": args.batch}
    runs = configs(args.cache, args.work, 0, **sizes)
    runs = runs[:1] if args.kind == "clt" else runs[1:]
    cache, places = Cache(args.cache), [(str(c.hook), str(c.target)) for c in runs]
    names = sorted({name for pair in places for name in pair})
    stream = cache.batches(names, args.batch)
    first, before = next(stream), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    states = [
        Run(c, first[hook], first[target], (cache.widths(hook), cache.widths(target)))
        for c, (hook, target) in zip(runs, places, strict=True)
    ]
    seconds = []
    for x in (next(stream) for _ in range(STEPS)):
        started = time.process_time()
        for state, (hook, target) in zip(states, places, strict=True):
            state.step(x[hook], x[target])
        seconds.append(time.process_time() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    kept = sorted(seconds[STEPS // 3 :])
    row = {"kind": args.kind, "cpu_seconds": kept[len(kept) // 2], "peak_mb": peak / 1024}
    row["parameters"] = sum(p.numel() for state in states for p in state.sae.parameters())
    (args.work / f"step-{args.kind}.json").write_text(json.dumps(row))
    print(json.dumps(row))


def compare(args: argparse.Namespace) -> None:
    """Means over seeds with intervals, and the paired difference of each layer."""
    rows = [json.loads(path.read_text()) for path in sorted(args.work.glob("seed-*.json"))]
    steps = [json.loads(path.read_text()) for path in sorted(args.work.glob("step-*.json"))]
    layers = []
    for i in range(len(rows[0]["clt"]["fvu"])):
        clt, split = ([row[kind]["fvu"][i] for row in rows] for kind in ("clt", "transcoders"))
        less = [a - b for a, b in zip(clt, split, strict=True)]
        columns = {"clt": clt, "transcoders": split, "clt_minus_transcoders": less}
        layers.append({name: over_seeds(column).as_dict() for name, column in columns.items()})
    l0 = {kind: over_seeds([sum(row[kind]["l0"]) for row in rows]).as_dict()
          for kind in ("clt", "transcoders")}  # fmt: skip
    machine = {"machine": args.machine, "torch": torch.__version__, "dtype": "float32"}
    command = "python benchmarks/cross_layer.py train, step, compare"
    result = {**machine, "command": command, "layers": layers, "l0": l0, "steps": steps,
              "held_out_tokens": HELD_OUT, "runs": rows}  # fmt: skip
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({"layers": layers, "l0": l0}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["train", "step", "compare"])
    parser.add_argument("--cache", default="")
    parser.add_argument("--work", type=Path, default=Path("cross-layer"))
    parser.add_argument("--out", type=Path, default=Path("cross_layer.json"))
    parser.add_argument("--kind", choices=["clt", "transcoders"], default="clt")
    parser.add_argument("--machine", default="")
    for name, value in (("seed", 0), ("features", 1024), ("k", 32), ("tokens", 600_000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--batch", type=int, default=2048)
    args = parser.parse_args()
    {"train": train, "step": step, "compare": compare}[args.what](args)


if __name__ == "__main__":
    main()
