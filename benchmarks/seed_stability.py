"""How does the agreement between seeds grow with tokens, rate and width? Three seeds of each; the
share of live features that come again in the others, beside chance, and how far rows have moved.

    python benchmarks/seed_stability.py --cache caches/a --out benchmarks/results/stability.json

Rows that the file holds already are kept: a killed measurement goes on.
"""

import argparse
import itertools
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import training
from saelab import SAE
from saelab.activations import Cache
from saelab.analysis.comparison import measure
from saelab.analysis.comparison.stability import over_runs, stability
from saelab.evaluation import metrics
from saelab.files import write_json
from saelab.matching import FOUND
from saelab.statistics import over_seeds

WIDTHS, TOKENS, FACTORS = (512, 1024, 2048), (100_000, 300_000, 900_000), (1.0, 0.25, 2.0)
SEEDS, HELD_OUT = (0, 1, 2), 20_000


def row(cache: str, sparsify: str, width: int, tokens: int, factor: float) -> dict:
    """Agreement, movement and FVU of three seeds at a multiple of the default rate."""
    base = training.Config(cache=cache, sparsify=sparsify, features=width, tokens=tokens)
    rate = factor * base.learning_rate(Cache(cache).width(Cache(cache).hooks[0]))
    with tempfile.TemporaryDirectory() as folder:
        configs = [
            replace(base, lr=rate, seed=seed, out=f"{folder}/{seed}", checkpoint_every=10**6)
            for seed in SEEDS
        ]
        training.train(configs)
        saes = {str(seed): SAE.load(f"{folder}/{seed}") for seed in SEEDS}
    together = measure(saes, Cache(cache), None, n_tokens=HELD_OUT, training=False)
    stable = stability(saes, together.codes)
    fvus = [
        float(metrics.fvu({k: v.sum(0) for k, v in t.items()})) for t in together.tables.values()
    ]
    stayed = [float((each.start[each.fired > 0] > FOUND).mean()) for each in stable.values()]
    moved = [float(np.median(each.start[each.fired > 0])) for each in stable.values()]
    live = [float((each.fired > 0).mean()) for each in stable.values()]
    by = {name: over_runs(stable, name) for name in ("cosine", "cofiring", "subspace")}
    by |= {"fvu": over_seeds(fvus), "at_start": over_seeds(stayed), "start": over_seeds(moved)}
    by["live"] = over_seeds(live)
    about = {"sparsify": sparsify, "features": width, "tokens": tokens, "rate": rate}
    return {**about, "factor": factor, **{name: each.as_dict() for name, each in by.items()}}


def main() -> None:
    """Measure what is missing, writing each row as it ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--sparsify", default="topk")
    parser.add_argument("--widths", nargs="+", type=int, default=WIDTHS)
    parser.add_argument("--tokens", nargs="+", type=int, default=TOKENS)
    parser.add_argument("--factors", nargs="+", type=float, default=FACTORS, help="of the rate")
    parser.add_argument("--machine", default="", help="what it runs on, in words")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    about = {
        "what": "share of features that fire on held-out tokens with a one-to-one partner above "
        f"{FOUND} in the other seeds; mean over three seeds with Student's interval",
        "machine": args.machine,
        "command": "python benchmarks/seed_stability.py --cache CACHE --out FILE",
        "cache": "the demo's: 1.1 million tokens, bundled model, blocks.1.hook_resid_post",
        "torch": torch.__version__,
        "dtype": "float32",
        "k": training.Config().k,
        "batch": training.Config().batch,
        "held_out_tokens": HELD_OUT,
        "seeds": len(SEEDS),
    }
    rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    known = {(r["sparsify"], r["features"], r["tokens"], r["factor"]) for r in rows}
    for factor, tokens, width in itertools.product(args.factors, args.tokens, args.widths):
        if (args.sparsify, width, tokens, factor) in known:
            continue
        rows.append(row(args.cache, args.sparsify, width, tokens, factor))
        print(json.dumps(rows[-1]), flush=True)
        write_json(args.out, {**about, "rows": rows})


if __name__ == "__main__":
    main()
