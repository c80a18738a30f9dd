"""An orthogonal dictionary is found again by Frank-Wolfe on batches: Xue and Lau 2021, "Online
Orthogonal Dictionary Learning Based on Frank-Wolfe Method" (arXiv 2103.01484).

Planted: 64 orthogonal atoms, codes that are Gaussian with probability 0.1 and else 0, 50,000
signals. Shapes: S seeds.
"""

import torch

from saelab.dictionaries import planted
from saelab.dictionaries.frank_wolfe import frank_wolfe
from saelab.statistics import over_seeds

from .claims import SEEDS, Claim, Settings, judge, seeds_claim

WIDTH, DENSITY = 64, 0.1
SIGNALS, STEPS, BATCH = 50_000, 600, 1000
QUICK = (2, 8_000, 200)  # seeds, signals, steps
FOUND, SLACK = 0.99, 1e-6


def claims(settings: Settings) -> list[Claim]:
    """How well the atoms are found, whether more steps find them better, and whether the iterate
    stays in the hull; dense codes, which are not to be found, beside."""
    n_seeds, n, steps = QUICK if settings.quick else (SEEDS, SIGNALS, STEPS)
    late, early, dense, norms = [], [], [], []
    for number in range(n_seeds):
        settings.progress("orthogonal dictionary", number, n_seeds)
        seed = settings.seed + number
        x_ND, W_DD = planted.orthogonal(n, WIDTH, DENSITY, seed)
        learned = frank_wolfe(x_ND, steps, BATCH, seed)
        late.append(float(planted.cosines(W_DD, learned.W).mean()))
        few = frank_wolfe(x_ND, steps // 10, BATCH, seed)
        early.append(float(planted.cosines(W_DD, few.W).mean()))
        norms.append(float(torch.linalg.matrix_norm(learned.iterate.double(), 2)))
        x_ND, W_DD = planted.orthogonal(n, WIDTH, 1.0, seed)
        blind = frank_wolfe(x_ND, steps, BATCH, seed)
        dense.append(float(planted.cosines(W_DD, blind.W).mean()))
    found = over_seeds(late, null=sum(dense) / len(dense))
    largest = over_seeds(norms)
    decided = n_seeds >= SEEDS
    return [
        Claim(
            "mean |cos| with the planted atoms (null: dense codes)",
            "recovered up to sign and order",
            found,
            judge(found, above=FOUND) if decided else None,
        ),
        seeds_claim(
            "gain over a tenth of the steps",
            "the error falls in t",
            [b - a for a, b in zip(early, late, strict=True)],
            above=0.0,
        ),
        Claim(
            "spectral norm of the iterate",
            "at most 1",
            largest,
            max(norms) <= 1 + SLACK if decided else None,
        ),
    ]
