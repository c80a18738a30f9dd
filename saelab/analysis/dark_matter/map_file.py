"""The linear maps that a dark-matter analysis fits, kept in a file beside its numbers.

A safetensors file of float64 tensors that holds its own digest, and of which SAE the maps are.
"""

from pathlib import Path
from typing import NamedTuple

import torch

from saelab import digests
from saelab.analysis.dark_matter.decomposition import Map
from saelab.analysis.dark_matter.linear import Linear
from saelab.files import write_atomic

SCHEMA = "saelab/dark-matter-map/1"
AGAIN = "run `saelab dark-matter RUN` again"
PARTS = ("error", "norm")


class Kept(NamedTuple):
    """What the file holds."""

    map: Map
    sae: str | None
    """SHA-256 of the weights of the SAE whose error it predicts"""


def write(path: Path, map: Map, sae: str | None) -> None:
    """Write the maps of the SAE whose weights have that SHA-256, atomically.

    write(RunFolder("runs/a").dark_matter_map, fit(x_ND, x_hat_ND), sae_digest)
    """
    from safetensors.torch import save_file

    tensors = {}
    for name, linear in zip(PARTS, map, strict=True):
        tensors[f"{name}.weight"] = linear.weight.cpu().contiguous()
        tensors[f"{name}.bias"] = linear.bias.cpu().contiguous()
        tensors[f"{name}.sizes"] = torch.tensor([linear.n_tokens, linear.rank])
    metadata = {"schema": SCHEMA, "sae": sae or "", digests.FIELD: digests.BLANK}

    def fill(temporary: Path) -> None:
        save_file(tensors, temporary, metadata)
        digests.seal(temporary)

    write_atomic(path, fill)


def read(path: Path) -> Kept:
    """The maps of a file. Raises FailedRun for one that is damaged, or of another version."""
    metadata, tensors = digests.sealed_tensors(path, SCHEMA, AGAIN)
    parts = []
    for name in PARTS:
        n_tokens, rank = tensors[f"{name}.sizes"].tolist()
        parts.append(Linear(tensors[f"{name}.weight"], tensors[f"{name}.bias"], n_tokens, rank))
    return Kept(Map(*parts), metadata["sae"] or None)
