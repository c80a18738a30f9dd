"""EleutherAI's sparsify: its SparseCoder under Adam, stepped as its trainer does, with AuxK."""

import os
from importlib.metadata import version

os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")

import torch
from sparsify import SparseCoder, SparseCoderConfig  # type: ignore[import-not-found]
from torch import Tensor

from .job import Job, Trained, batches, to_norm

VERSION = version("eai-sparsify")
AUX = 1 / 32


def train(job: Job, x_ND: Tensor) -> Trained:
    """sparsify's SAE of a job, which has TopK alone, on activations of squared norm D."""
    assert job.variant == "topk" and job.lr is not None
    torch.manual_seed(job.seed)
    scale = to_norm(x_ND, x_ND.shape[1] ** 0.5)
    config = SparseCoderConfig(num_latents=job.features, k=job.k)
    coder = SparseCoder(x_ND.shape[1], config, dtype=torch.float32)
    optimiser = torch.optim.Adam(coder.parameters(), lr=job.lr)
    silent_F = torch.zeros(job.features)
    for step, x_BD in enumerate(batches(x_ND, job, scale)):
        if step == 0:
            coder.b_dec.data = x_BD.mean(0)
        coder.set_decoder_norm_to_unit_norm()
        out = coder(x_BD, dead_mask=silent_F > job.window)
        (out.fvu + AUX * out.auxk_loss).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        for group in optimiser.param_groups:
            group["lr"] = job.lr * job.share(step)
        optimiser.step()
        optimiser.zero_grad()
        silent_F += 1
        silent_F[out.latent_indices.flatten()] = 0
    coder.set_decoder_norm_to_unit_norm()
    levels_F = torch.zeros(job.features)
    weights = coder.encoder.weight, coder.encoder.bias, coder.W_dec, coder.b_dec
    return Trained(*weights, levels_F, scale)
