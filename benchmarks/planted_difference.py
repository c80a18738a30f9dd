"""Is an SAE that is worse by a hundredth told from itself? Independent noise of 1% of each token's
error energy is added to its reconstructions, and both are measured on the same held-out tokens.

    python benchmarks/planted_difference.py runs/demo --out planted.json
"""

import argparse
import platform
from pathlib import Path

import numpy as np
import torch

import saelab
from saelab.evaluation import rows
from saelab.evaluation.measurement import Measurement
from saelab.evaluation.references import Reconstruct, coded, references
from saelab.evaluation.rows import SPLICED
from saelab.files import write_json
from saelab.statistics import least, paired, verdict

PLANTED = 0.01  # of the error's energy
SEEDS = (0, 1, 2)


def noisy(reconstruct: Reconstruct, seed: int) -> Reconstruct:
    """The reconstructions with noise that knows nothing of them, as long as a tenth of their
    error."""
    generator = torch.Generator().manual_seed(seed)

    def worse(x_ND: torch.Tensor) -> tuple:
        x_hat_ND, l0_N, code = reconstruct(x_ND)
        noise_ND = torch.randn(x_ND.shape, generator=generator)
        length_N = PLANTED**0.5 * (x_ND - x_hat_ND).norm(dim=1)
        return x_hat_ND + noise_ND * (length_N / noise_ND.norm(dim=1))[:, None], l0_N, code

    return worse


@torch.no_grad()
def measure(run: str, cache: str | None, n_tokens: int) -> dict:
    """Every metric's paired difference for each seed of the noise, and with the noisy ones'
    documents in another order."""
    _, sae, opened, model = saelab.open(run, cache=cache)
    source, target = sae.origin.hooks
    known = references(opened.moments(target, "train"), 1)
    known = {name: known[name] for name in ("zero", "mean")}
    known |= {f"noise {seed}": noisy(coded(sae), seed) for seed in SEEDS}
    measured = Measurement(model, (source, target), opened.whole(source), {"sae": sae}, known)
    measured.read(opened, n_tokens)
    documents = measured.sums["sae"].documents
    tables = {name: sums.table(documents) for name, sums in measured.sums.items()}
    order = np.random.default_rng(0).permutation(len(documents))
    result = []
    for seed in SEEDS:
        worse = tables[f"noise {seed}"]
        shuffled = {name: column[order] for name, column in worse.items()}
        for pairs, mine in (("paired", worse), ("shuffled", shuffled)):
            for row in rows.table().values():
                if row.source not in SPLICED or row.source == "output":
                    continue
                change = paired(mine, tables["sae"], row.statistic, len(documents))
                words = {"least": least(change), "verdict": verdict(change, row.better)}
                about = {"seed": seed, "pairs": pairs, "metric": row.key}
                result.append({**about, **change.as_dict(), **words})
    return {
        "planted": PLANTED,
        "tokens": int(tables["sae"]["tokens"].sum()),
        "documents": len(documents),
        "differences": result,
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--cache")
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result = measure(args.run, args.cache, args.tokens)
    result |= {"machine": platform.processor() or platform.machine(), "dtype": "float32"}
    for row in result["differences"]:
        print(row["seed"], row["pairs"], row["metric"], row["value"], row["verdict"])
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
