"""Why the length that an encoder starts with matters: the first reconstruction, and the rate beside
its rows' length, changed apart.

    python benchmarks/encoder_start.py --cache DIR --length 0.5 1 best --share 1 length
    python benchmarks/encoder_start.py --cache DIR --features 4096 --steps 900 --times 0.7 1 \\
        --length best --share length --seeds 0
    python benchmarks/encoder_start.py --cache DIR --steps 900 --runs runs/demo  # as it is trained
    python benchmarks/encoder_start.py  # the rows so far

Encoder rows start at `length` times their decoder rows, `best` being what makes the reconstruction
of the first batch the best multiple of itself, and move at `share` of the learning rate, `length`
being the same number; features move in every step (`--no-lazy`). A TopK SAE's FVU is of 30,000
held-out tokens at exactly k pairs each, its dead features are of the last 100,000 training tokens:
`trained/measured.py`. A row is written as each SAE is done, and what is written is not trained
again. `--runs`: what `saelab train` has made on the first tokens of the same cache, measured alike.
"""

import argparse
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

from benchmarks.quality import HELD_OUT, TRAINING, rows_of
from benchmarks.trained import measured
from benchmarks.trained.job import Trained, raw
from saelab import SAE
from saelab.activations import Cache
from training import Config
from training.reproduce.measure import tokens
from training.run import Run

RESULTS = Path(__file__).parent / "results" / "encoder_start.jsonl"
SAMPLE = 100_000  # training tokens for scale and geometric median


def best_multiple(run: Run, x_BD: Tensor) -> float:
    """What to multiply the first reconstruction by, so that it is nearest to its input."""
    scaled_BD = x_BD / run.scale.input
    with torch.no_grad():
        x_hat_BD, b_dec = run.sae.reconstruct(scaled_BD)[0], run.sae.b_dec
        along = ((scaled_BD - b_dec) * (x_hat_BD - b_dec)).sum()
        return float(along / (x_hat_BD - b_dec).square().sum())


def trained(config: Config, x_ND: Tensor, length: str, share: str) -> tuple[SAE, float]:
    """An SAE whose encoder starts so and moves so, and the length in numbers."""
    run = Run(config, x_ND[:SAMPLE], x_ND[:SAMPLE])
    norm = best_multiple(run, x_ND[: config.batch]) if length == "best" else float(length)
    part = norm if share == "length" else float(share)
    W_enc = run.sae.W_enc.detach()  # which the step sees change
    W_enc *= norm
    for x_BD in x_ND.split(config.batch):
        before_FD = W_enc.clone()
        run.step(x_BD, x_BD)
        if part != 1:
            W_enc.copy_(before_FD.lerp(W_enc, part))
    sae = run.final()
    assert isinstance(sae, SAE)
    return sae, norm


class Bench:
    """The activations, and what measures an SAE on them."""

    def __init__(self, args: argparse.Namespace) -> None:
        cache = Cache(args.cache)
        with cache.batches(cache.hooks[0], args.batch) as stream:
            self.x_ND = torch.cat([next(stream) for _ in range(args.steps)])
        self.held_out_ND = tokens(args.cache, cache.hooks[0], "held_out", HELD_OUT)

    def numbers(self, sae: SAE, k: int) -> dict[str, float]:
        """FVU and share of dead features of a TopK SAE."""
        none_F = sae.b_enc.new_zeros(sae.n_features)
        tensors = raw(Trained(sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, none_F, 1.0))
        given = (tensors, self.held_out_ND, self.x_ND[-TRAINING:], measured.Form(k), "topk")
        of_sae = measured.measure(*given)
        return {"fvu": round(of_sae.fvu, 6), "dead": round(of_sae.dead, 6)}


def work(args: argparse.Namespace) -> None:
    """Train and measure what the rows lack."""
    bench = Bench(args)
    shape = {"features": args.features, "k": args.k, "batch": args.batch}
    base = Config(tokens=args.steps * args.batch, encoder="unit", lazy=False, **shape)
    rates = [times * base.learning_rate(bench.x_ND.shape[1]) for times in args.times]
    asked = itertools.product(args.length, args.share, rates or [args.lr], args.seeds)
    for length, share, rate, seed in asked if not args.runs else ():
        about: dict[str, Any] = {"length": length, "share": share, **shape, "steps": args.steps}
        about |= {"rate": round(rate, 6), "seed": seed}
        if any(about.items() <= row.items() for row in rows_of(args.results)):
            continue
        sae, norm = trained(replace(base, lr=rate, seed=seed), bench.x_ND, length, share)
        _keep(args, {**about, "norm": round(norm, 4), **bench.numbers(sae, args.k)})
    for folder in args.runs:
        _keep(args, {"run": folder.name, **bench.numbers(SAE.load(folder), args.k)})


def _keep(args: argparse.Namespace, row: dict[str, Any]) -> None:
    with args.results.open("a") as file:
        file.write(json.dumps(row | {"machine": args.machine}) + "\n")


def main() -> None:
    """Train what is missing, if a cache is named; print the rows."""
    parser = argparse.ArgumentParser(description="The length that an encoder starts with.")
    parser.add_argument("--cache", help="the activations: of its first hook")
    parser.add_argument("--length", nargs="+", default=["1"], help="numbers, or best")
    parser.add_argument("--share", nargs="+", default=["1"], help="numbers, or length")
    parser.add_argument("--lr", type=float, default=0.008)
    parser.add_argument("--times", nargs="+", type=float, default=[], help="the default rate")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", nargs="+", type=Path, default=[], help="measure these instead")
    for name, value in {"features": 1024, "k": 32, "batch": 1024, "steps": 300}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--machine", default="", help="what the rows say of it")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.cache:
        work(args)
    for row in rows_of(args.results):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
