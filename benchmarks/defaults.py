"""Defaults of training changed one at a time, each with three seeds, paired with the default's: is
the FVU at exactly k pairs per token lower?

    python benchmarks/defaults.py --cache DIR
    python benchmarks/defaults.py --cache DIR --features 4096 --steps 600 \\
        --hook blocks.1.mlp.hook_in --target blocks.1.hook_mlp_out --changes topk "topk, both"
    python benchmarks/defaults.py  # the tables of the committed rows

A row is written as each SAE is done, and what is written is not trained again. Levels are reset on
held-out tokens that are not scored. What is trained on standardised tokens is scored on them too:
its FVU is no other's.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from saelab import SAE
from saelab.activations import Cache
from saelab.statistics import over_seeds
from saelab.token_norm import normalised
from training import Config
from training.reproduce.measure import at_l0, tokens
from training.run import Run

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
SHAPE = ("features", "k", "batch", "steps")
SAMPLE, APART = 100_000, 15_000  # training tokens for scale and levels; held-out ones, twice
TOPK, BATCH, JUMP = "topk", "batchtopk", "jumprelu"


def nothing(run: Run) -> None:
    """Leave a run as it begins."""


def from_zero(run: Run) -> None:
    """Start b_dec at 0, not at the geometric median."""
    run.sae.b_dec.data.zero_()


def levels_stay(run: Run) -> None:
    """Leave learned levels to their gradients alone."""
    run._lower = lambda *_: None


class Change(NamedTuple):
    """One default changed."""

    sparsify: str
    """sparsifier"""
    fields: Mapping[str, Any] = MappingProxyType({})
    """fields of Config that differ"""
    begin: Callable[[Run], None] = nothing
    """what is done to the run before its first step"""
    times: float = 1.0
    """of the default rate"""
    over: str = ""
    """what it is compared with (default: the sparsifier's own default)"""


CHANGES = {
    "topk": Change(TOPK),
    "batchtopk": Change(BATCH, over="topk"),
    "topk, tokens standardised": Change(
        TOPK, {"normalise": "token"}, over="topk, tokens standardised"
    ),
    "batchtopk, tokens standardised": Change(
        BATCH, {"normalise": "token"}, over="topk, tokens standardised"
    ),
    "jumprelu": Change(JUMP, over="topk"),
    "topk, twice the rate": Change(TOPK, times=2.0),
    "topk, twice the rate, revive": Change(
        TOPK, {"revive": True}, times=2.0, over="topk, twice the rate"
    ),
    "topk, revive": Change(TOPK, {"revive": True}),
    "topk, encoder of norm 1": Change(TOPK, {"encoder": "unit"}),
    "topk, features move in every step": Change(TOPK, {"lazy": False}),
    "topk, both": Change(TOPK, {"encoder": "unit", "lazy": False}),
    "batchtopk, features move in every step": Change(BATCH, {"lazy": False}, over="batchtopk"),
    "topk, 1.4 times the rate": Change(TOPK, times=1.4),
    "topk, 0.7 times the rate": Change(TOPK, times=0.7),
    "topk, average of the weights, 0.99": Change(TOPK, {"ema": 0.99}),
    "topk, no AuxK": Change(TOPK, {"aux": 0.0}),
    "topk, b_dec from 0": Change(TOPK, begin=from_zero),
    "topk, warm-up 0.01": Change(TOPK, {"warm_up": 0.01}),
    "topk, warm-up 0.2": Change(TOPK, {"warm_up": 0.2}),
    "topk, decay 0.1": Change(TOPK, {"decay": 0.1}),
    "topk, decay 0.5": Change(TOPK, {"decay": 0.5}),
    "topk, beta1 0.8": Change(TOPK, {"beta1": 0.8}),
    "topk, beta1 0.95": Change(TOPK, {"beta1": 0.95}),
    "topk, beta2 0.99": Change(TOPK, {"beta2": 0.99}),
    "topk, dead after 2% of the run": Change(TOPK, {"dead_window": 6_144}),
    "topk, dead after half the run": Change(TOPK, {"dead_window": 153_600}),
    "jumprelu, features move in every step": Change(JUMP, {"lazy": False}),
    "jumprelu, levels of silent features stay": Change(JUMP, begin=levels_stay),
    "jumprelu, both": Change(JUMP, {"lazy": False}, levels_stay),
    "jumprelu, penalty weight 0.3": Change(JUMP, {"penalty_weight": 0.3}, over="jumprelu"),
    "jumprelu, penalty weight 3": Change(JUMP, {"penalty_weight": 3.0}, over="jumprelu"),
}


class Bench:
    """The activations, and what trains and measures on them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, cache = args, Cache(args.cache)
        self.hooks = {"hook": args.hook or cache.hooks[0], "target": args.target}
        names = [name for name in self.hooks.values() if name]
        with cache.batches(names, args.batch) as stream:
            batches = [next(stream) for _ in range(args.steps)]
        self.batches = [(batch[names[0]], batch[names[-1]]) for batch in batches]
        held_out = [tokens(args.cache, name, "held_out", 2 * APART) for name in names]
        self.apart, self.scored = (
            (held_out[0][part], held_out[-1][part]) for part in (slice(APART), slice(APART, None))
        )

    def row(self, change: Change, seed: int) -> dict[str, Any]:
        """The numbers of a change's SAE of a seed."""
        args = self.args
        given = {"features": args.features, "k": args.k, "batch": args.batch, "seed": seed}
        given |= {"tokens": args.steps * args.batch, "target": args.target, **change.fields}
        config = Config(sparsify=change.sparsify, **given)
        config = replace(config, lr=change.times * config.learning_rate(self.scored[0].shape[1]))
        sample = [
            torch.cat(part) for part in zip(*self.batches[: SAMPLE // args.batch], strict=True)
        ]
        same = args.target is None
        run = Run(config, sample[0], sample[0] if same else sample[1])
        change.begin(run)
        for x_BD, y_BE in self.batches:
            run.step(x_BD, x_BD if same else y_BE)
        sae = run.final()
        assert isinstance(sae, SAE)
        sae.calibrate(sample[0].split(4096))
        (apart_ND, _), (x_ND, y_NE) = (
            (normalised(x, sae.token_norm).x, y) for x, y in (self.apart, self.scored)
        )
        sae = at_l0(sae.frozen(), apart_ND, args.k)
        with torch.no_grad():
            y_hat_NE, code = sae.reconstruct(x_ND)
        y_NE = x_ND if same else y_NE
        fired_F = torch.bincount(code.features[code.values != 0], minlength=args.features)
        missed = (y_hat_NE - y_NE).square().sum() / (y_NE - y_NE.mean(0)).square().sum()
        return {
            "fvu": round(float(missed), 6),
            "l0": round(float(fired_F.sum()) / len(x_ND), 3),
            "dead": round(float((fired_F == 0).double().mean()), 5),
        }


def work(args: argparse.Namespace, rows: list[dict]) -> None:
    """Train and measure what the rows lack."""
    bench = Bench(args)
    shape = {name: getattr(args, name) for name in SHAPE} | bench.hooks
    done = [(row["change"], row["seed"]) for row in rows if shape.items() <= row.items()]
    for name in args.changes:
        for seed in args.seeds:
            if (name, seed) not in done:
                row = {"change": name, "seed": seed, **shape, **bench.row(CHANGES[name], seed)}
                rows.append(row | {"machine": args.machine})
                with args.results.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")


def of(row: dict) -> tuple:
    """What a row is of, but for its change and seed."""
    return tuple(row[name] for name in (*SHAPE, "hook", "target"))


def tables(rows: list[dict]) -> Iterator[str]:
    """Of each shape a line per change: FVU, its ratio to what it is compared with, paired by seed,
    dead share."""
    for shape in dict.fromkeys(map(of, rows)):
        yield " ".join(map(str, shape))
        yield from table([row for row in rows if of(row) == shape])


def table(rows: list[dict]) -> Iterator[str]:
    """Those of one shape."""
    fvu: dict[str, dict[int, float]] = {}
    for row in rows:
        fvu.setdefault(row["change"], {})[row["seed"]] = row["fvu"]
    for name, by_seed in fvu.items():
        over = CHANGES[name].over or CHANGES[name].sparsify
        dead = over_seeds([row["dead"] for row in rows if row["change"] == name]).value
        line = f"{name:40} FVU {over_seeds([*by_seed.values()]).value:.4f}  dead {dead:.3f}"
        both = [seed for seed in by_seed if seed in fvu.get(over, {})]
        if name != over and both:
            ratio = over_seeds([by_seed[seed] / fvu[over][seed] for seed in both])
            interval = "" if ratio.low is None else f" [{ratio.low:.3f}, {ratio.high:.3f}]"
            line += f"  / {over}: {ratio.value:.3f}{interval}"
        yield line


def main() -> None:
    """Train what is missing, if a cache is named; print the table."""
    parser = argparse.ArgumentParser(description="Defaults of training, changed one at a time.")
    parser.add_argument("--cache", help="the activations: of its first hook")
    parser.add_argument("--hook", help="read there (default: the cache's first)")
    parser.add_argument("--target", help="explained by a transcoder")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=[*CHANGES])
    for name, value in {"features": 2048, "k": 32, "batch": 1024, "steps": 300}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--machine", default="", help="what the rows say of it")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "defaults.jsonl")
    args = parser.parse_args()
    lines = args.results.read_text().splitlines() if args.results.exists() else []
    rows = [json.loads(line) for line in lines]
    if args.cache:
        work(args, rows)
    print(*tables(rows), sep="\n")


if __name__ == "__main__":
    main()
