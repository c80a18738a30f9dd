"""A report of ours as SAEBench's `core` result."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from saelab.errors import UsageError
from saelab.formats.saebench import Config, config
from saelab.sae import SAE

UNMEASURED = -1  # what SAEBench itself writes for a number that it has not got
SAE_ID = "custom_sae"  # of one that is given to it as an object

# Where what we measure is not what SAEBench measures under that name.
DIFFERENCES = {
    "explained_variance": "1 - FVU with the variance around the mean activation; SAEBench 0.6.0 "
    "squares a mean of squares there, which depends on the activations' scale",
    "frac_alive": "of these tokens: 1 - the share of features that never fired on them",
    "all": "on held-out documents of the SAE's own cache, positions that its cache counts; not on "
    "SAEBench's data set",
}


def core(
    report: Mapping[str, Any],
    sae: SAE,
    name: str,
    *,
    millis: int,
    dataset: str = "",
    context: int = 0,
) -> dict[str, Any]:
    """A report of ours as SAEBench's `core` result. What a report does not hold is UNMEASURED, as
    SAEBench writes what it has not got; `eval_result_unstructured` lists that, the intervals, and
    where our definitions are others.

    name: of the release; millis: when it was measured, since 1970. dataset, context: text and
    length of contexts, where known. Raises UsageError for a transcoder's report.

    >>> core(json.loads(text), sae, "mine", millis=0)["eval_result_metrics"]["sparsity"]["l0"]
    """
    if sae.transcoder:
        reason = "its reconstruction is of another place than it reads, SAEBench's of the same"
        raise UsageError(f"{sae!r} cannot be written as saebench: {reason}")
    metrics = _metrics(report)
    missing = [
        name
        for category in metrics.values()
        for name, value in category.items()
        if value == UNMEASURED
    ]
    notes = {
        "measured_by": f"saelab {report.get('saelab_version', '')}",
        "command": report.get("command", ""),
        "not_measured": missing,
        "definitions_that_differ": DIFFERENCES,
        "intervals": {
            key: [value["low"], value["high"]]
            for key, value in report.items()
            if isinstance(value, Mapping) and value.get("low") is not None
        },
    }
    about = _eval_config(report, config(sae), dataset, context)
    return framed("core", report, sae, name, millis, about, metrics, notes)


def framed(
    kind: str,
    report: Mapping[str, Any],
    sae: SAE,
    name: str,
    millis: int,
    about: Mapping[str, Any],
    metrics: Mapping[str, Any],
    notes: Mapping[str, Any],
    details: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A result of any kind as SAEBench keeps it. about: its `eval_config`."""
    digits = f"{kind} {sorted(report.items(), key=str)}"
    return {
        "eval_type_id": kind,
        "eval_config": dict(about),
        "eval_id": str(uuid.uuid5(uuid.NAMESPACE_OID, digits)),
        "datetime_epoch_millis": millis,
        "eval_result_metrics": dict(metrics),
        "eval_result_details": list(details),
        "sae_bench_commit_hash": "",
        "sae_lens_id": SAE_ID,
        "sae_lens_release_id": name,
        "sae_lens_version": None,
        "sae_cfg_dict": config(sae).to_dict(),
        "eval_result_unstructured": {"saelab": dict(notes)},
    }


def _eval_config(
    report: Mapping[str, Any], cfg: Config, dataset: str, context: int
) -> dict[str, Any]:
    """Every field, as its reader fills in defaults of its own that would not be true."""
    has_losses = "no_losses" not in report
    return {
        "model_name": cfg.model_name,
        "llm_dtype": "float32",
        "batch_size_prompts": 0,
        "n_eval_reconstruction_batches": 0,
        "n_eval_sparsity_variance_batches": 0,
        "dataset": dataset,
        "context_size": context,
        "compute_kl": has_losses,
        "compute_ce_loss": has_losses,
        "compute_l2_norms": False,
        "compute_sparsity_metrics": True,
        "compute_variance_metrics": True,
        "compute_featurewise_density_statistics": False,
        "compute_featurewise_weight_based_metrics": False,
        "exclude_special_tokens_from_reconstruction": True,
        "verbose": False,
    }


def of_suite(report: Mapping[str, Any], evaluation: str, metric: str) -> float | None:
    """The SAE's number of a report's suite, if it holds that."""
    wanted = ("sae", evaluation, metric)
    for row in report.get("suite", {}).get("rows", ()):
        if (row["dictionary"], row["evaluation"], row["metric"]) == wanted:
            return row["value"]
    return None


def _metrics(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    def value(key: str, which: str = "value") -> float | None:
        estimate = report.get(key)
        return estimate[which] if isinstance(estimate, Mapping) else None

    kl, kl_ablated = value("kl"), value("kl", "null")
    fvu, unseen = value("fvu"), value("unseen_fraction")
    measured: dict[str, dict[str, float | None]] = {
        "model_behavior_preservation": {
            "kl_div_score": 1 - kl / kl_ablated if kl is not None and kl_ablated else None,
            "kl_div_with_ablation": kl_ablated,
            "kl_div_with_sae": kl,
        },
        "model_performance_preservation": {
            "ce_loss_score": value("ce_recovered"),
            "ce_loss_with_ablation": report.get("ce_ablated"),
            "ce_loss_with_sae": report.get("ce_spliced"),
            "ce_loss_without_sae": report.get("ce_clean"),
        },
        "reconstruction_quality": {
            "explained_variance": None if fvu is None else 1 - fvu,
            "explained_variance_legacy": None,
            "mse": None,
            "cossim": value("cosine"),
        },
        "shrinkage": {
            "l2_norm_in": None,
            "l2_norm_out": None,
            "l2_ratio": of_suite(report, "core", "l2 ratio"),
            "relative_reconstruction_bias": of_suite(report, "core", "relative bias"),
        },
        "sparsity": {"l0": value("l0"), "l1": None},
        "token_stats": {
            "total_tokens_eval_reconstruction": report["tokens"],
            "total_tokens_eval_sparsity_variance": report["tokens"],
        },
        "misc_metrics": {
            "freq_over_1_percent": None,
            "freq_over_10_percent": value("dense_fraction"),
            "normalized_freq_over_1_percent": None,
            "normalized_freq_over_10_percent": None,
            "average_max_encoder_cosine_sim": None,
            "average_max_decoder_cosine_sim": None,
            "frac_alive": None if unseen is None else 1 - unseen,
        },
    }
    return {
        category: {name: UNMEASURED if got is None else got for name, got in fields.items()}
        for category, fields in measured.items()
    }
