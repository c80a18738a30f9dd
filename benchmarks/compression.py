"""Does a sparse dictionary beat whitened low rank at equal bytes? The bundled model's 16 matrices
at four ratios, held-out cross-entropy paired by document. Nothing is random: at these sizes K-SVD
starts from principal directions.

    saelab capture --hook blocks.1.hook_resid_post --text stdlib --tokens 1M --out runs/demo/cache
    python benchmarks/compression.py --cache runs/demo/cache
"""

import argparse
import json
import os
import time
from itertools import product
from pathlib import Path

import numpy as np
import torch

from apps.cli import bench
from saelab import models
from saelab.activations import Cache
from saelab.analysis import compression
from saelab.analysis.compression.effect import losses_of
from saelab.files import write_json
from saelab.statistics import difference, over_documents, weights

RESULTS = Path("benchmarks/results/compression_epyc_zen4_2cores.json")
RATIOS = (0.2, 0.3, 0.4, 0.5)


def factors(model, grams, held_out, ratio: float, method: str, rounds: int) -> tuple:
    """The compressed model, and its row of sizes and of how far each matrix's outputs move."""
    groups = compression.grouped(compression.matrices(model), 1)
    started = time.process_time()
    plan = compression.Plan(ratio, rounds)
    made = compression.compress(model, groups, grams, method, plan)
    cpu = time.process_time() - started
    small = compression.multiplied_out(model, made)
    changes = {}
    for matrix in compression.matrices(model):
        W_IO, moments_II = matrix.weight(model).double(), held_out[matrix.hook].mean_II
        moved_IO = W_IO - matrix.weight(small).double()
        parts = [float(torch.trace(A.T @ moments_II @ A)) for A in (moved_IO, W_IO)]
        changes[matrix.name] = parts[0] / parts[1]
    bits = sum(group.factors.bits for group in made)
    return small, {"bytes": bits // 8, "cpu_seconds": round(cpu, 1), "changes": changes}


def losses(model, small: dict, cache: Cache, n_tokens: int) -> dict:
    """What every compressed model loses, and cospadi's loss less that of each other method."""
    names = list(small)
    sums, table = losses_of([model, *small.values()], cache, n_tokens)
    columns = {
        name: np.stack([table[str(number)], table["n"]], 1)
        for number, name in enumerate(["original", *names])
    }
    mean, weights_RG = (lambda s: s[..., 0] / s[..., 1]), weights(len(sums.documents))
    against = [
        (one, other)
        for one, other in product(names, names)
        if one[1] == "cospadi" and other[0] == one[0] and other != one
    ]

    def less(one, other) -> dict:
        return difference(columns[one], columns[other], mean, weights_RG).as_dict()

    return {
        "predictions": int(table["n"].sum()),
        "documents": len(sums.documents),
        "original": over_documents(columns["original"], mean, weights_RG).as_dict(),
        "added": {f"{m} {r:g}": less((r, m), "original") for r, m in names},
        "cospadi less": {f"{o[1]} {o[0]:g}": less(one, o) for one, o in against},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--held-out", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ratios", nargs="+", type=float, default=RATIOS)
    parser.add_argument("--methods", nargs="+", default=list(compression.METHODS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, cache = models.load("bundled"), Cache(given.cache)
    hooks = list(dict.fromkeys(matrix.hook for matrix in compression.matrices(model)))
    grams = compression.grams(model, cache, hooks, given.tokens)
    held_out = compression.grams(model, cache, hooks, given.held_out, "held_out")
    small, rows = {}, {}
    for ratio, method in product(given.ratios, given.methods):
        made, row = factors(model, grams, held_out, ratio, method, given.rounds)
        small[ratio, method], rows[f"{method} {ratio:g}"] = made, row
        print(method, ratio, row["bytes"], row["cpu_seconds"], flush=True)
    head = {"machine": bench.explained(), "threads": 1, "load": round(os.getloadavg()[0], 1)}
    head |= {"dtype": "float32", "tokens": given.tokens, "rounds": given.rounds}
    result = {**head, **losses(model, small, cache, given.held_out), "factors": rows}
    write_json(RESULTS, result)
    print(json.dumps({name: result[name] for name in ("added", "cospadi less")}, indent=1))


if __name__ == "__main__":
    main()
