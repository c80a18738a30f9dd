"""Ours: the trainer's own steps."""

from torch import Tensor

from saelab import __version__
from training import Config
from training.run import Run

from .job import Job, Trained, batches

VERSION = __version__
NAMES = {"matryoshka": "batchtopk"}  # a loss of its own, over a BatchTopK code
SAMPLE = 100_000


def train(job: Job, x_ND: Tensor) -> Trained:
    """Our SAE of a job, in inference form."""
    config = Config(
        sparsify=NAMES.get(job.variant, job.variant),
        loss="matryoshka" if job.variant == "matryoshka" else "plain",
        k=job.k,
        features=job.features,
        tokens=job.steps * job.batch,
        batch=job.batch,
        lr=job.lr,
        seed=job.seed,
    )
    sample_ND = x_ND[:SAMPLE]
    run = Run(config, sample_ND, sample_ND)
    for x_BD in batches(x_ND, job):
        run.step(x_BD, x_BD)
    sae = run.final()
    assert sae is not None
    sae.calibrate(iter(x_ND[:SAMPLE].split(4096)))
    levels_F = sae.b_enc.new_zeros(job.features) if sae.levels is None else sae.levels
    return Trained(sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, levels_F, 1.0)
