"""What a package is asked to train and what it gives back, in one form for all.

It needs torch alone, so that a peer's environment can use it. Shapes: N tokens, B of a batch, F
features, D width.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


class Job(NamedTuple):
    """One SAE to train."""

    variant: str
    """topk, batchtopk, matryoshka or jumprelu"""
    features: int
    """F"""
    k: int
    """pairs per token; of jumprelu the L0 it aims at"""
    batch: int
    """B"""
    steps: int
    """of the whole run"""
    lr: float | None
    """peak learning rate; None is the default, which only ours has"""
    seed: int
    """of the initial weights"""

    @property
    def warm_up(self) -> int:
        """Steps over which the rate rises, the same for all."""
        return max(1, round(0.05 * self.steps))

    @property
    def decay(self) -> int:
        """Steps at the end over which it falls to 0, the same for all."""
        return max(1, round(0.2 * self.steps))

    @property
    def window(self) -> int:
        """Steps without firing after which a feature is dead, the same for all."""
        return max(1, self.steps // 10)

    def share(self, step: int) -> float:
        """The share of the peak rate at a step, counted from 0."""
        return min(1.0, (step + 1) / self.warm_up, (self.steps - step) / self.decay)


class Trained(NamedTuple):
    """pre = (x - b_dec) W_enc^T + b_enc, x_hat = z W_dec + b_dec, of activations times `scale`."""

    W_enc: Tensor
    """[F, D]"""
    b_enc: Tensor
    """[F]"""
    W_dec: Tensor
    """[F, D]"""
    b_dec: Tensor
    """[D]"""
    levels: Tensor
    """[F]: what a pre-activation must exceed in the package's own inference form; 0 of a TopK"""
    scale: float
    """what the package multiplies activations by"""


def batches(x_ND: Tensor, job: Job, scale: float = 1.0) -> Iterator[Tensor]:
    """The job's batches [B, D] in order, scaled."""
    for step in range(job.steps):
        yield x_ND[step * job.batch : (step + 1) * job.batch].clone() * scale


def to_norm(x_ND: Tensor, norm: float) -> float:
    """What makes the mean squared norm of the first 100,000 tokens norm^2."""
    return norm / float(x_ND[:100_000].square().sum(1).mean().sqrt())


@torch.no_grad()
def raw(trained: Trained) -> dict[str, Tensor]:
    """The same function of raw activations, rows of W_dec of unit norm."""
    norm_F = trained.W_dec.norm(dim=1)
    to_F = norm_F / trained.scale
    tensors = {
        "W_enc": trained.W_enc * norm_F[:, None],
        "b_enc": trained.b_enc * to_F,
        "W_dec": trained.W_dec / norm_F[:, None],
        "b_dec": trained.b_dec / trained.scale,
        "levels": trained.levels * to_F,
    }
    return {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}


def run(package: Any, folder: Path) -> None:
    """Train with a package's module the job of folder/job.json on folder/../x.npy; its SAE, seconds
    of CPU and version into the folder."""
    torch.set_num_threads(1)
    job = Job(**json.loads((folder / "job.json").read_text()))
    x_ND = torch.from_numpy(np.load(folder.parent / "x.npy"))
    started = time.process_time()
    tensors = raw(package.train(job, x_ND))
    ms = 1e3 * (time.process_time() - started) / job.steps
    save_file(tensors, folder / "sae.safetensors")
    (folder / "said.json").write_text(json.dumps({"ms": round(ms, 1), "version": package.VERSION}))


def result(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `run` left there."""
    return load_file(folder / "sae.safetensors"), json.loads((folder / "said.json").read_text())
