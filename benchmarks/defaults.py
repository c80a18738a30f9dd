"""Defaults of training changed one at a time, each with three seeds, paired with the default's: is
the FVU at exactly k pairs per token lower?

    python benchmarks/defaults.py --cache DIR
    python benchmarks/defaults.py  # the table of the committed rows

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

from saelab.activations import Cache
from saelab.statistics import over_seeds
from saelab.token_norm import normalised
from training import Config
from training.reproduce.measure import at_l0, quality, tokens
from training.run import Run

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
SAMPLE, APART = 100_000, 15_000  # training tokens for scale and levels; held-out ones, twice
TOPK, BATCH, JUMP = "topk", "batchtopk", "jumprelu"


def nothing(run: Run) -> None:
    """Leave a run as it begins."""


def from_zero(run: Run) -> None:
    """Start b_dec at 0, not at the geometric median."""
    run.sae.b_dec.data.zero_()


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
    "jumprelu, penalty weight 0.3": Change(JUMP, {"penalty_weight": 0.3}, over="jumprelu"),
    "jumprelu, penalty weight 3": Change(JUMP, {"penalty_weight": 3.0}, over="jumprelu"),
}


class Bench:
    """The activations, and what trains and measures on them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, cache = args, Cache(args.cache)
        hook = cache.hooks[0]
        with cache.batches(hook, args.batch) as stream:
            self.batches = [next(stream) for _ in range(args.steps)]
        held_out_ND = tokens(args.cache, hook, "held_out", 2 * APART)
        self.apart_ND, self.scored_ND = held_out_ND[:APART], held_out_ND[APART:]

    def row(self, name: str, seed: int) -> dict[str, Any]:
        """A change's SAE of a seed, and its numbers."""
        change, args = CHANGES[name], self.args
        n_tokens = args.steps * args.batch
        shape = {"features": args.features, "k": args.k, "batch": args.batch, "tokens": n_tokens}
        config = Config(sparsify=change.sparsify, seed=seed, **shape, **change.fields)
        width = self.scored_ND.shape[1]
        config = replace(config, lr=change.times * config.learning_rate(width))
        sample_ND = torch.cat(self.batches[: SAMPLE // args.batch])
        run = Run(config, sample_ND, sample_ND)
        change.begin(run)
        for x_BD in self.batches:
            run.step(x_BD, x_BD)
        sae = run.final()
        assert sae is not None
        sae.calibrate(sample_ND.split(4096))
        norm = sae.token_norm
        apart_ND, scored_ND = (normalised(x, norm).x for x in (self.apart_ND, self.scored_ND))
        scored = quality(at_l0(sae.frozen(), apart_ND, args.k), scored_ND)
        return {"change": name, "seed": seed, **shape, **scored._asdict()}


def work(args: argparse.Namespace, rows: list[dict]) -> None:
    """Train and measure what the rows lack."""
    bench, done = Bench(args), {(row["change"], row["seed"]) for row in rows}
    for name in args.changes:
        for seed in SEEDS:
            if (name, seed) not in done:
                rows.append(bench.row(name, seed) | {"machine": args.machine})
                with args.results.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")


def table(rows: list[dict]) -> Iterator[str]:
    """A line per change: FVU, its ratio to what it is compared with, paired by seed, dead share."""
    fvu: dict[str, dict[int, float]] = {}
    for row in rows:
        fvu.setdefault(row["change"], {})[row["seed"]] = row["fvu"]
    for name, by_seed in fvu.items():
        over = CHANGES[name].over or CHANGES[name].sparsify
        dead = over_seeds([row["dead"] for row in rows if row["change"] == name]).value
        line = f"{name:34} FVU {over_seeds([*by_seed.values()]).value:.4f}  dead {dead:.3f}"
        both = [seed for seed in by_seed if seed in fvu.get(over, {})]
        if name != over and both:
            ratio = over_seeds([by_seed[seed] / fvu[over][seed] for seed in both])
            line += f"  / {over}: {ratio.value:.3f} [{ratio.low or 0:.3f}, {ratio.high or 0:.3f}]"
        yield line


def main() -> None:
    """Train what is missing, if a cache is named; print the table."""
    parser = argparse.ArgumentParser(description="Defaults of training, changed one at a time.")
    parser.add_argument("--cache", help="the activations: of its first hook")
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
    print(*table(rows), sep="\n")


if __name__ == "__main__":
    main()
