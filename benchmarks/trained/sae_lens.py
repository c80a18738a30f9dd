"""SAELens: its trainer over its training SAEs, at its own settings where the job says nothing."""

from sae_lens import __version__  # type: ignore[import-not-found]
from sae_lens.config import SAETrainerConfig  # type: ignore[import-not-found]
from sae_lens.saes import batchtopk_sae as batchtopk  # type: ignore[import-not-found]
from sae_lens.saes import jumprelu_sae as jumprelu  # type: ignore[import-not-found]
from sae_lens.saes import matryoshka_batchtopk_sae as matryoshka  # type: ignore[import-not-found]
from sae_lens.saes import topk_sae as topk  # type: ignore[import-not-found]
from sae_lens.training.sae_trainer import SAETrainer  # type: ignore[import-not-found]
from torch import Tensor, manual_seed

from .job import Job, Trained, batches, to_norm

VERSION = __version__


def _sae(job: Job, width: int):
    common = {"d_in": width, "d_sae": job.features, "dtype": "float32", "device": "cpu"}
    if job.variant == "topk":
        return topk.TopKTrainingSAE(topk.TopKTrainingSAEConfig(**common, k=job.k))
    if job.variant == "batchtopk":
        config = batchtopk.BatchTopKTrainingSAEConfig(**common, k=job.k)
        return batchtopk.BatchTopKTrainingSAE(config)
    if job.variant == "matryoshka":
        widths = [job.features >> i for i in (4, 3, 2, 1, 0)]
        made = matryoshka.MatryoshkaBatchTopKTrainingSAEConfig
        config = made(**common, k=job.k, matryoshka_widths=widths)
        return matryoshka.MatryoshkaBatchTopKTrainingSAE(config)
    aimed = {"jumprelu_sparsity_loss_mode": "quadratic", "target_l0": job.k}
    # Its squared error is a sum over the width, which the penalty has to outweigh.
    aimed |= {"l0_coefficient": float(width), "l0_warm_up_steps": job.warm_up}
    config = jumprelu.JumpReLUTrainingSAEConfig(**common, **aimed)
    return jumprelu.JumpReLUTrainingSAE(config)


def train(job: Job, x_ND: Tensor) -> Trained:
    """SAELens' SAE of a job, on activations of squared norm D, as `expected_average_only_in` makes
    them."""
    manual_seed(job.seed)
    width = x_ND.shape[1]
    scale = to_norm(x_ND, width**0.5)
    sae = _sae(job, width)
    config = SAETrainerConfig(
        total_training_samples=job.steps * job.batch,
        train_batch_size_samples=job.batch,
        lr=job.lr,
        lr_end=job.lr / 10,
        lr_warm_up_steps=job.warm_up,
        lr_decay_steps=job.decay,
        dead_feature_window=job.window,
    )
    SAETrainer(config, sae, batches(x_ND, job, scale)).fit()
    levels_F = sae.b_enc.new_zeros(job.features)
    if job.variant == "jumprelu":
        levels_F = sae.threshold
    elif job.variant != "topk":  # its threshold is of values times the norms of decoder rows
        levels_F = (sae.topk_threshold / sae.W_dec.norm(dim=1)).float()
    b_enc_F = sae.b_enc
    if not sae.cfg.apply_b_dec_to_input:
        b_enc_F = b_enc_F + sae.b_dec @ sae.W_enc
    return Trained(sae.W_enc.T, b_enc_F, sae.W_dec, sae.b_dec, levels_F, scale)
