"""What a report holds beside its metrics as SAEBench's results: probes of one's own labels as
`sparse_probing_sae_probes`, the structure of decoder rows as `meta_structure_decoder_variance`.

Absorption has no place there: SAEBench's is of first letters. Nor has interchange: its RAVEL is of
cities and laureates.
"""

from collections.abc import Mapping
from typing import Any

from saelab.formats.saebench import config
from saelab.formats.saebench_results import UNMEASURED, framed, of_suite
from saelab.sae import SAE

PROBES = "sparse_probing_sae_probes"
META = "meta_structure_decoder_variance"


def others(
    report: Mapping[str, Any], sae: SAE, name: str, *, millis: int
) -> dict[str, dict[str, Any]]:
    """The results by kind that a report of `eval --labels` or `--suite` gives beside `core`; none
    of another. name, millis: as of `saebench_results.core`.

    >>> others(report, sae, "mine", millis=0)["sparse_probing_sae_probes"]["eval_result_metrics"]
    """
    results = {}
    notes = {"measured_by": f"saelab {report.get('saelab_version', '')}"}
    details = _tasks(report["labelled"]["rows"]) if "labelled" in report else []
    if details:
        about = {"model_name": config(sae).model_name, "random_seed": report.get("seed", 0)}
        metrics = {"llm": _mean(details, "llm"), "sae": _mean(details, "sae")}
        said = notes | {
            "definitions_that_differ": "strength by log loss, L2; one label against all"
        }
        results[PROBES] = framed(PROBES, report, sae, name, millis, about, metrics, said, details)
    variance = of_suite(report, "meta-structure", "variance of rows")
    if variance is not None:
        fields = dict.fromkeys(("train_time_seconds", "final_reconstruction_mse"), UNMEASURED)
        metrics = {"meta_structure": {"decoder_fraction_variance_explained": variance, **fields}}
        about = {"random_seed": report.get("seed", 0), "width_ratio": 0.25, "k": 4}
        said = notes | {"not_measured": [*fields]}
        results[META] = framed(META, report, sae, name, millis, about, metrics, said)
    return results


def _tasks(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The mean over the labels of each task, on last tokens."""
    tasks: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        prefix = {"sae": f"sae_top_{row['k']}_test", "dense": "llm_test"}.get(row["dictionary"])
        if prefix and row["level"] == "last":
            for score in ("accuracy", "auc"):
                values = tasks.setdefault(row["task"], {}).setdefault(f"{prefix}_{score}", [])
                values.append(row[score]["value"])
    return [
        {"dataset_name": task, **{name: sum(each) / len(each) for name, each in fields.items()}}
        for task, fields in tasks.items()
    ]


def _mean(details: list[dict[str, Any]], side: str) -> dict[str, float]:
    names = [name for name in (details[0] if details else ()) if name.startswith(f"{side}_")]
    return {name: sum(one[name] for one in details) / len(details) for name in names}
