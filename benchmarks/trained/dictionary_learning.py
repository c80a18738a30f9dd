"""dictionary_learning: its trainers, at its own settings where the job says nothing."""

import sys
import types
from importlib.metadata import version

from torch import Tensor, manual_seed

# What it imports to read models, which is not asked for here.
sys.modules.setdefault("nnsight", types.SimpleNamespace(LanguageModel=None))  # type: ignore[arg-type]

from dictionary_learning.trainers import (  # type: ignore[import-not-found] # noqa: E402
    batch_top_k,
    jumprelu,
    matryoshka_batch_top_k,
    top_k,
)

from .job import Job, Trained, batches, to_norm  # noqa: E402

VERSION = version("dictionary-learning")


def _trainer(job: Job, width: int):
    common = {"steps": job.steps, "activation_dim": width, "dict_size": job.features}
    common |= {"layer": 0, "lm_name": "", "lr": job.lr, "seed": job.seed, "device": "cpu"}
    common |= {"warmup_steps": job.warm_up, "decay_start": job.steps - job.decay}
    if job.variant == "jumprelu":
        aimed = {"target_l0": job.k, "sparsity_warmup_steps": job.warm_up}
        return jumprelu.JumpReluTrainer(**common, **aimed)
    common |= {"k": job.k, "threshold_start_step": job.steps // 2}
    if job.variant == "topk":
        return top_k.TopKTrainer(**common)
    if job.variant == "batchtopk":
        return batch_top_k.BatchTopKTrainer(**common)
    shares = [1 / 16, 1 / 16, 1 / 8, 1 / 4, 1 / 2]
    made = matryoshka_batch_top_k.MatryoshkaBatchTopKTrainer
    return made(**common, group_fractions=shares)


def train(job: Job, x_ND: Tensor) -> Trained:
    """dictionary_learning's SAE of a job, on activations of squared norm 1, as its
    `normalize_activations` makes them."""
    manual_seed(job.seed)
    scale = to_norm(x_ND, 1.0)
    trainer = _trainer(job, x_ND.shape[1])
    trainer.dead_feature_threshold = job.window * job.batch
    for step, x_BD in enumerate(batches(x_ND, job, scale)):
        trainer.update(step, x_BD)
    ae = trainer.ae
    if job.variant in ("topk", "batchtopk"):
        W_enc, b_enc, W_dec = ae.encoder.weight, ae.encoder.bias, ae.decoder.weight.T
    else:
        W_enc, b_enc, W_dec = ae.W_enc.T, ae.b_enc, ae.W_dec
    levels_F = b_enc.new_zeros(job.features)
    if job.variant == "jumprelu":
        levels_F = ae.threshold
        b_enc = b_enc + W_enc @ ae.b_dec  # it does not subtract b_dec from its input
    elif job.variant != "topk":
        levels_F = levels_F + ae.threshold
    return Trained(W_enc, b_enc, W_dec, ae.b_dec, levels_F, scale)
