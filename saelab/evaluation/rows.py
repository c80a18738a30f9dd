"""The metrics of a report, one row each: what the report measures, the command prints and the
browser shows is read from here.

>>> register(Metric("sparsity", "share of features per token", "sparsity", "L0 / F", "lower",
...                 lambda sums: sums["l0"] / sums["tokens"] / 4096))
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from saelab.errors import UsageError
from saelab.evaluation import metrics

Measured = Literal["reconstruction", "prediction", "output", "classes", "firing", "training"]
# Sources that references and controls have too.
SPLICED = ("reconstruction", "prediction", "output", "classes")
SHORT = 16  # characters of a column head
OTHER_FIELDS = (  # of report.json, by which no metric may be called
    *("schema", "saelab_version", "seed", "command", "sha256", "tokens", "documents"),
    *("dead_tokens", "n_features", "ce_clean", "ce_spliced", "ce_ablated", "ce_mean_ablated"),
    *("no_losses", "references", "controls", "separation", "probing", "check", "run", "sae"),
    *("no_frozen_decoder", "hooks", "replaced", "labelled", "suite", "rivals", "concepts"),
)


class Metric(NamedTuple):
    """One metric."""

    key: str
    """its name in report.json"""
    label: str
    """its name for people"""
    short: str
    """the same as a column head, at most 16 characters"""
    help: str
    """formula and unit in one sentence"""
    better: Literal["lower", "higher", "none"]
    """which way a better SAE moves it"""
    statistic: Callable[[metrics.Sums], np.ndarray]
    """sums by name (see `metrics`), with any leading dimensions, to the metric"""
    null: str | None = None
    """the reference whose value an SAE that learned nothing gets, or `random_init`"""
    source: Measured = "reconstruction"
    """whose sums: of reconstructions or of the predictions made with them spliced in (references
    and controls have both too), of features' firing on the same held-out tokens, or of their
    firing on training tokens. Of a model that predicts no tokens there are no predictions; the
    output embedding is that of a model that reads no text, the classes those of its head"""
    headline: bool = False
    """whether it stands in tables of several SAEs or references"""
    compared: Callable[[metrics.Sums], np.ndarray] | None = None
    """the same of the features that fire alone, where an SAE is held against a control: one whose
    features are dead must not look the better for it; None: `statistic`"""


_BUILT_IN = (
    Metric(
        "fvu",
        "FVU",
        "FVU",
        "share of the activations' variance that the reconstruction misses",
        "lower",
        metrics.fvu,
        "mean",
        headline=True,
    ),
    Metric(
        "l0",
        "L0",
        "L0",
        "features that fire per token; of a reference, numbers it keeps of each token",
        "none",
        metrics.l0,
        headline=True,
    ),
    Metric(
        "dead_fraction",
        "dead features",
        "dead",
        "share of features that never fire on 500,000 training tokens (all, if there are fewer)",
        "lower",
        metrics.silent_fraction,
        "random_init",
        "training",
        headline=True,
    ),
    Metric(
        "unseen_fraction",
        "unseen features",
        "unseen",
        "share of features that never fire on the held-out tokens",
        "lower",
        metrics.silent_fraction,
        "random_init",
        "firing",
    ),
    Metric(
        "dense_fraction",
        "dense features",
        "dense",
        "share of features that fire on more than 10% of the held-out tokens",
        "lower",
        metrics.dense_fraction,
        "random_init",
        "firing",
        compared=metrics.dense_among_live,
    ),
    Metric(
        "cosine",
        "cosine",
        "cosine",
        "mean cosine of activations and reconstructions",
        "higher",
        metrics.cosine,
        "mean",
    ),
    Metric(
        "ce_recovered",
        "CE recovered",
        "CE recovered",
        "(CE_ablated - CE_spliced) / (CE_ablated - CE_clean), ablation by 0",
        "higher",
        metrics.ce_recovered,
        "zero",
        "prediction",
        headline=True,
    ),
    Metric(
        "ce_recovered_mean",
        "CE recovered (mean ablation)",
        "CE rec. (mean)",
        "the same, ablation by the mean activation",
        "higher",
        metrics.ce_recovered_mean,
        "mean",
        "prediction",
    ),
    Metric(
        "kl",
        "KL, nats",
        "KL, nats",
        "mean KL(clean || spliced) of the model's next-token predictions, in nats",
        "lower",
        metrics.kl,
        "zero",
        "prediction",
        headline=True,
    ),
    Metric(
        "output_error",
        "output error",
        "output error",
        "||out - spliced||^2 / ||out - mean||^2 of the model's output embedding",
        "lower",
        metrics.fvu,
        "mean",
        "output",
        headline=True,
    ),
    Metric(
        "class_kl",
        "KL of classes",
        "KL of classes",
        "mean KL(clean || spliced) over images of the classes that the model's head tells, in nats",
        "lower",
        metrics.kl,
        "mean",
        "classes",
    ),
)
_ROWS = {row.key: row for row in _BUILT_IN}


def table() -> dict[str, Metric]:
    """Every row by its key, in the order of the report."""
    return dict(_ROWS)


def headline() -> list[Metric]:
    """The rows of tables of several SAEs or references."""
    return [row for row in _ROWS.values() if row.headline]


def register(row: Metric) -> None:
    """Add a metric. Raises UsageError for what is no metric, and if its key is taken, by a metric
    or by another field."""
    if not isinstance(row, Metric):
        raise UsageError(f"{row!r} is a {type(row).__name__}: a saelab.Metric is right")
    if not callable(row.statistic):
        raise UsageError(
            f"the statistic of {row.key} is {row.statistic!r}: a function of sums is right"
        )
    if len(row.short) > SHORT:
        raise UsageError(f"short={row.short!r} has {len(row.short)} characters of at most {SHORT}")
    if row.key in _ROWS or row.key in OTHER_FIELDS:
        raise UsageError(f"reports have a field {row.key!r} already: give the metric another name")
    _ROWS[row.key] = row


def of(report: Mapping[str, Any]) -> list[Metric]:
    """The rows that a report holds; those that nobody here registered, named by their keys,
    last."""
    known = [row for key, row in _ROWS.items() if isinstance(report.get(key), Mapping)]
    others = [
        Metric(key, key.replace("_", " "), key[:SHORT], "", "none", lambda sums: sums["tokens"])
        for key, field in report.items()
        if key not in _ROWS and isinstance(field, Mapping) and {"value", "null"} <= field.keys()
    ]
    return known + others
