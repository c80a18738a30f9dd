"""How well each estimate of a feature's effect on the loss ranks what ablating it really does, on
held-out contexts of a run.

    python benchmarks/prompt_effects.py runs/demo --prompts 30 --out benchmarks/results/...json

Shapes: N pairs, P pairs that are ablated.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apps.cli import bench as machine
from saelab import prompting
from saelab.analysis import prompts
from saelab.analysis.prompts.ablation import LARGEST as LARGEST_EXACT
from saelab.analysis.prompts.ablation import losses_without, rank_correlation
from saelab.analysis.prompts.integrated import APART, LARGEST, STEPS
from saelab.statistics import over_documents, paired, weights

OTHERS = 20  # pairs of a prompt drawn beside the largest of either estimate
DENSE = 0.1


def mean(sums_G2: np.ndarray) -> np.ndarray:
    """The mean of sums [..., (correlation, 1)]."""
    return sums_G2[..., 0] / np.maximum(sums_G2[..., 1], 1e-9)


def one(bench: Any, tokens_T: torch.Tensor, draw: torch.Generator) -> dict[str, Any]:
    """Rank correlations of both estimates with exact ablation on a prompt, and their seconds."""
    prompt = prompts.Prompt("", tokens_T, [""] * len(tokens_T), 1)
    started = time.process_time()
    read = prompts.read(bench.model, bench.sae, prompt)
    first_N = prompts.table(read).effect
    between = time.process_time()
    along_N = prompts.integrated(bench.model, read)
    ended = time.process_time()
    assert first_N is not None and along_N is not None and read.loss is not None
    effects = {"gradient": first_N, "integrated": along_N.cpu()}
    chosen = [effect_N.abs().topk(LARGEST_EXACT).indices for effect_N in effects.values()]
    chosen.append(torch.randperm(len(first_N), generator=draw)[:OTHERS])
    picked_P = torch.cat(chosen).unique()
    exact_P = read.loss.double().sum() - losses_without(bench.model, read, picked_P)
    dense_P = torch.from_numpy(bench.densities[read.code.features[picked_P].numpy()] > DENSE)
    parts = {"all": torch.ones_like(dense_P), "dense": dense_P, "others": ~dense_P}
    ranks = {
        name: {
            part: rank_correlation(effect_N[picked_P][kept].double(), exact_P[kept])
            for part, kept in parts.items()
        }
        for name, effect_N in effects.items()
    }
    return {
        "ranks": ranks,
        "seconds": {"gradient": between - started, "integrated": ended - between},
    }


def summed(rows: list[dict[str, Any]], part: str) -> dict[str, Any]:
    """Both estimates' mean rank correlations over prompts, and the difference, paired."""
    sums = {}
    known = [row["ranks"] for row in rows]
    known = [ranks for ranks in known if None not in (ranks[name][part] for name in ranks)]
    for name in ("gradient", "integrated"):
        sums[name] = np.array([[ranks[name][part], 1.0] for ranks in known])
    drawn = weights(len(known), 0)
    means = {name: over_documents(one, mean, drawn).as_dict() for name, one in sums.items()}
    change = paired(sums["integrated"], sums["gradient"], mean, len(known))
    return {"prompts": len(known), **means, "integrated less gradient": change.as_dict()}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--prompts", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    bench, draw, rows = prompting.open(args.run), torch.Generator().manual_seed(0), []
    for chunk in bench.cache.contexts(bench.sae.origin.hook, "held_out"):
        for tokens_T in chunk.tokens[: args.prompts - len(rows)]:
            rows.append(one(bench, tokens_T[: args.tokens].long(), draw))
            print(f"{len(rows)} of {args.prompts}", file=sys.stderr)
    seconds = {name: [row["seconds"][name] for row in rows] for name in ("gradient", "integrated")}
    result = {
        "schema": "saelab/prompt-effects/1",
        "command": " ".join(["python", *sys.argv]),
        "machine": machine.explained(),
        "run": args.run,
        "dtype": "float32",
        "shape": {"prompts": len(rows), "tokens": args.tokens, "features": bench.sae.n_features},
        "integrated": {"steps": STEPS, "largest": LARGEST, "apart": APART},
        "cpu seconds per prompt": {name: float(np.median(one)) for name, one in seconds.items()},
        "rank correlation with exact ablation": {
            part: summed(rows, part) for part in ("all", "dense", "others")
        },
    }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
