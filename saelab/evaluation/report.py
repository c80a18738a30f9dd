"""The report of an SAE: every metric with interval and null, beside SAEs whose results are known in
advance.

Shapes: C contexts, T positions, D width, F features, G documents, R resamples.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from saelab.activations import Cache
from saelab.coder import Coder
from saelab.errors import UsageError
from saelab.evaluation import metrics, rows
from saelab.evaluation.controls import measured_l0, untrained
from saelab.evaluation.firing import DEAD_TOKENS, silent, training_tokens
from saelab.evaluation.measurement import Measurement
from saelab.evaluation.outputs import Outputs
from saelab.evaluation.references import Reconstruct, coded, references
from saelab.evaluation.rows import SPLICED, Metric
from saelab.evaluation.separation import separation
from saelab.origin import part_of
from saelab.sae import SAE
from saelab.statistics import DocumentSums, Estimate, over_documents, share_over_documents, weights
from saelab.statistics.bootstrap import total

Progress = Callable[[int], None]
AT_HOOK = ("reconstruction", "prediction")  # sources of rows that each of several hooks has
CE = {"clean": "clean", "spliced": "spliced", "ablated": "zero", "mean_ablated": "mean"}


@torch.no_grad()
def evaluate(
    sae: Coder,
    cache: Cache,
    model: Any = None,
    *,
    n_tokens: int = 200_000,
    seed: int = 0,
    controls: Mapping[str, Coder | Reconstruct] | None = None,
    rivals: Mapping[str, SAE] | None = None,
    outputs: Outputs | None = None,
    progress: Progress | None = None,
) -> dict:
    """The fields of report.json for an SAE in inference form on up to n_tokens held-out tokens of
    its cache.

    Each metric of `rows` is an Estimate, interval over documents; null is what an SAE that learned
    nothing gets. Of an SAE on a part of an activation (another SAE's error), the
    rest of the activation stays as the model has it. Of several hooks (a crosscoder, a cross-layer
    transcoder) all are replaced at once by what is made of the clean run's activations, and
    `hooks` has the same rows for each, replaced alone; `replaced` has those of the model in which
    every layer's output is a cross-layer transcoder's, of that run's own inputs. Of a model that
    predicts no tokens, and without one, the rows of predictions are absent and `no_losses` says
    why. controls: further SAEs at the same hook, or reconstructions, by name, measured on the same
    tokens (fields `controls` and `separation`, only if there are any). rivals: label-free
    dictionaries by name, measured as references are (`rivals` has their sizes). outputs: of a model
    that reads no text, in place of `model`: its output embedding is measured. Raises UsageError if
    the SAE's width is not the cache's, the cache has no held-out document, or the SAE is a
    transcoder without a model or from a part of an activation.

    >>> _, sae, cache, model = saelab.open("runs/demo")
    >>> evaluate(sae.frozen(), cache, model)["fvu"]["value"]
    """
    check_place(sae, cache)
    source, target = sae.origin.hooks
    l0 = measured_l0(sae, cache, seed)
    untrained_ = untrained(sae, cache, seed)
    given = (controls or {}).items()
    others = {name: each for name, each in given if isinstance(each, Coder)}
    known = {name: each for name, each in given if not isinstance(each, Coder)}
    known |= {name: coded(rival) for name, rival in (rivals or {}).items()}
    run = Measurement(
        model,
        (source, target),
        cache.whole(source),
        {**others, "sae": sae},
        references(cache.moments(target, "train"), l0, sae.b_dec.device) | known,
        untrained_,
        widths=cache.widths(target),
        outputs=outputs,
    )
    run.read(cache, n_tokens, progress)
    fields = _report(run, sae, untrained_, cache, [*(controls or {})], seed)
    if rivals:
        fields["rivals"] = {name: rival.n_features for name, rival in rivals.items()}
    return fields | (_separation(run, [*(controls or {})], seed) if controls else {})


def check_place(sae: Coder, cache: Cache) -> None:
    """Raise UsageError if the SAE's width is not the cache's, its place is none in a model, or it
    is one layer of a cross-layer transcoder, which explains no output alone."""
    source, target = sae.origin.hooks
    if part := part_of(sae.origin.more):
        raise UsageError(f"this is {part}, which explains no output alone: evaluate the whole")
    if cache.width(source) != sae.d_model:
        raise UsageError(
            f"the SAE has d_model={sae.d_model}, {source} of the cache {cache.width(source)}"
        )
    if cache.whole(source) and target != source:
        raise UsageError(
            f"{source} is a part of an activation: an SAE from it to {target} has no place in the "
            "model"
        )


def _separation(run: Measurement, controls: list[str], seed: int) -> dict[str, Any]:
    """Whether metrics tell the SAE from its controls."""
    documents = run.sums["sae"].documents
    sums: dict[str, dict[str, Any]] = {}
    for name in ("sae", *controls):
        table = run.sums[name].table(documents)
        sums[name] = dict.fromkeys(SPLICED, table)
        for source, by_name in (("output", run.of_output), ("classes", run.of_classes)):
            if by_name:
                sums[name][source] = by_name[name].table(documents)
        if name in run.fired:
            fired = run.fired[name].table(documents)
            sums[name]["firing"] = {"fired": fired, "tokens": table["tokens"]}
    measured = [row for row in rows.table().values() if row.source not in run.absent | {"training"}]
    return {"separation": separation(sums, controls, measured, len(documents), seed)}


def _report(
    run: Measurement, sae: Any, untrained_: Any, cache: Any, named: list[str], seed: int
) -> dict:
    """All fields from the sums."""
    documents = run.sums["sae"].documents
    tables = {name: sums.table(documents) for name, sums in run.sums.items()}
    fired = _firing(run, {"sae": sae, "random_init": untrained_}, cache, tables["sae"], seed)
    outs = {
        source: {name: sums.table(documents) for name, sums in by_name.items()}
        for source, by_name in (("output", run.of_output), ("classes", run.of_classes))
    }
    by_row = [row for row in rows.table().values() if row.source not in run.absent]
    weights_RG = weights(len(documents), seed)
    beside = {
        name: {
            row.key: over_documents(
                outs.get(row.source, tables)[name], row.statistic, weights_RG
            ).as_dict()
            for row in by_row
            if row.source in SPLICED
        }
        for name in tables
        if name != "sae"
    }
    controls = {
        name: beside.pop(name) | _fires(run, name, by_row, tables["sae"], weights_RG)
        for name in named
    }
    whole = total(tables["sae"])
    return {
        **{row.key: _estimate(row, tables, fired | outs, weights_RG).as_dict() for row in by_row},
        **_losses(run.no_losses, whole),
        "tokens": int(whole["tokens"]),
        "documents": len(documents),
        "dead_tokens": min(DEAD_TOKENS, cache.n_tokens("train")),
        "n_features": sae.n_features,
        "references": beside,
        **({"controls": controls} if controls else {}),
        **_several(run, by_row, documents, weights_RG),
    }


def _fires(
    run: Measurement, name: str, by_row: list[Metric], sums_G: dict, weights_RG: np.ndarray
) -> dict[str, dict]:
    """Of a control that has features the rows about their firing, its dead ones among them."""
    if name not in run.fired:
        return {}
    fired = run.fired[name].table(run.sums["sae"].documents)
    sums = {"fired": fired, "tokens": sums_G["tokens"]}
    return {
        row.key: share_over_documents(sums, row.statistic, weights_RG).as_dict()
        for row in by_row
        if row.source == "firing"
    }


def _several(
    run: Measurement, by_row: list[Metric], documents: list[int], weights_RG: np.ndarray
) -> dict[str, dict]:
    """Of several hooks the rows of each, replaced alone; of a cross-layer transcoder those of the
    model that it makes."""

    def stated(sums: DocumentSums, sources: tuple[str, ...]) -> dict[str, dict]:
        table = sums.table(documents)
        return {
            row.key: over_documents(table, row.statistic, weights_RG).as_dict()
            for row in by_row
            if row.source in sources and row.key != "l0"
        }

    fields: dict[str, dict] = {}
    if run.at_hook:
        fields["hooks"] = {hook: stated(sums, AT_HOOK) for hook, sums in run.at_hook.items()}
    if run.clt is not None and not run.no_losses:
        fields["replaced"] = stated(run.replaced, ("prediction",))
    return fields


def _losses(no_losses: str, whole: Mapping[str, np.ndarray]) -> dict[str, float | str]:
    """Cross-entropies in nats, or why there are none."""
    if no_losses:
        return {"no_losses": no_losses}
    return {f"ce_{key}": float(metrics.cross_entropy(whole, name)) for key, name in CE.items()}


def _estimate(row: Metric, tables: dict, others: dict, weights_RG: np.ndarray) -> Estimate:
    """A metric of the SAE, with the null that its row names."""
    by_name = others.get(row.source, tables)
    null = None if row.null is None else float(row.statistic(total(by_name[row.null])))
    if row.source == "training":
        return Estimate(float(row.statistic(total(by_name["sae"]))), null=null)
    interval = over_documents if row.source in SPLICED else share_over_documents
    return interval(by_name["sae"], row.statistic, weights_RG, null)


def _firing(
    run: Measurement,
    saes: Mapping[str, Coder],
    cache: Any,
    sums_G: dict,
    seed: int,
) -> dict[str, dict]:
    """The sums of rows about features, by source and then by SAE."""
    documents, tokens_G = run.sums["sae"].documents, sums_G["tokens"]
    counted = {"sae": run.fired["sae"], "random_init": run.fired["untrained"]}
    firing = {
        name: {"fired": fired.table(documents), "tokens": tokens_G}
        for name, fired in counted.items()
    }
    training = {name: {"fired": fires(sae, cache, seed)[None]} for name, sae in saes.items()}
    return {"firing": firing, "training": training}


def fires(sae: Coder, cache: Any, seed: int) -> np.ndarray:
    """[F] bool: whether each feature fires in training."""
    return ~silent(sae, training_tokens(cache, sae.origin.hook, seed)).cpu().numpy()
