"""Comparisons of toy runs, as `saelab compare` writes them."""

from pathlib import Path

import torch
from scipy.sparse import csr_array

from saelab import SAE
from saelab.analysis.comparison import features
from saelab.files import write_json
from saelab.runs import RunFolder
from tests import toy_index as toy

FVU = {"metric": "fvu", "label": "FVU", "better": "lower", "null": 0.0}
OVER_SEEDS = {
    **FVU,
    "value": -0.02,
    "low": -0.03,
    "high": -0.01,
    "least": 0.01,
    "n": 3,
    "pairing": "matched",
    "verdict": "better",
}
STAYED = {"value": 0.25, "low": None, "high": None, "null": 0.0}
DIFFERENCES = [
    {
        **FVU,
        "first": 0.1,
        "second": 0.2,
        "value": 0.1,
        "low": 0.05,
        "high": 0.15,
        "least": 0.05,
        "verdict": "worse",
    },
    {
        **FVU,
        "metric": "kl",
        "label": "KL, nats",
        "first": 0.3,
        "second": 0.2,
        "value": -0.1,
        "low": None,
        "high": None,
        "least": None,
        "verdict": "not told apart",
    },
]


@torch.no_grad()
def codes(sae: SAE) -> csr_array:
    """[N, F] on the toy's tokens."""
    cache = toy.Cache()
    return csr_array(sae.encode(cache.acts[cache.counted]).to_dense().numpy())


def compare(first: Path, second: Path) -> Path:
    """Write the comparison of two toy runs into the first; its path."""
    saes = [SAE.load(run) for run in (first, second)]
    document = {
        "schema": "saelab/compare/1",
        "first": str(first),
        "second": str(second),
        "sae": RunFolder(first).sae_digest(),
        "second_sae": RunFolder(second).sae_digest(),
        "tokens": 500,
        "documents": 9,
        "interval": "student",
        "sentences": {"runs": "B is worse in FVU.", "configurations": "B is better in FVU."},
        "differences": DIFFERENCES,
        "configurations": {"first": ["a"], "second": ["b"], "differences": [OVER_SEEDS]},
        "start": {"same": True, "threshold": 0.7, "first": STAYED, "second": STAYED},
        **features.shared(*saes, *map(codes, saes)),
    }
    path = RunFolder(first).compared(second)
    write_json(path, document)
    return path
