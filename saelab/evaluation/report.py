"""The report of an SAE: every metric with interval and null, beside SAEs whose results are known in
advance.

Shapes: C contexts, T positions, D width, F features, G documents, R resamples.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelab.activations import Cache, Contexts
from saelab.errors import UsageError
from saelab.evaluation import metrics, rows
from saelab.evaluation.controls import measured_l0, untrained
from saelab.evaluation.downstream import Splice, predicting, spliced
from saelab.evaluation.firing import DEAD_TOKENS, Firings, silent, training_tokens
from saelab.evaluation.references import Reconstruct, coded, references
from saelab.evaluation.rows import Metric
from saelab.sae import SAE
from saelab.statistics import (
    DocumentSums,
    Estimate,
    over_documents,
    share_over_documents,
    weights,
)
from saelab.statistics.bootstrap import total

Progress = Callable[[int], None]


def _per_token(x_ND: Tensor, x_hat_ND: Tensor, l0_N: Tensor) -> dict[str, Tensor]:
    """The sums of `metrics` that belong to tokens."""
    norms_N = x_ND.norm(dim=1) * x_hat_ND.norm(dim=1)
    return {
        "tokens": torch.ones(len(x_ND)),
        "error": (x_ND - x_hat_ND).double().square().sum(1),
        "square": x_ND.double().square().sum(1),
        "l0": l0_N,
        "cosine": torch.where(norms_N > 0, (x_ND * x_hat_ND).sum(1) / norms_N, 0),
        "x": x_ND,
    }


def _per_prediction(losses: dict[str, Tensor], name: str, kl_P: Tensor) -> dict[str, Tensor]:
    """The sums of `metrics` that belong to predictions, of one row. losses: of every row, `clean`
    without any."""
    ablated = {which: losses[which] for which in ("clean", "zero", "mean")}
    return {"predictions": torch.ones(len(kl_P)), "spliced": losses[name], "kl": kl_P, **ablated}


class _Evaluation:
    """Sums by document of an SAE, its controls and its references over chunks of contexts.

    hooks: what the SAE reads and what it explains; whole: the hook of whose activation the SAE
    explains a part that the model has no hook for, such as another SAE's error (None: it explains
    all of it).
    """

    def __init__(
        self,
        model: Any,
        hooks: tuple[str, str],
        whole: str | None,
        saes: dict[str, SAE],
        known: dict[str, Reconstruct],
        untrained: SAE,
    ) -> None:
        self.model, self.hooks, self.whole = model, hooks, whole
        self.coded = {name: coded(sae) for name, sae in saes.items()}
        self.rows = known | self.coded
        self.untrained = untrained
        self.sums = {name: DocumentSums() for name in self.rows}
        self.fired = {name: Firings(untrained.n_features) for name in ("sae", "random_init")}

    def add(self, chunk: Contexts) -> None:
        """Run the model clean and with every row spliced in, and add what was measured; the cached
        activations are read only for a part."""
        tokens_CT, cached_CTD, documents_CT, counted_CT = chunk
        spliced_at = self.whole or self.hooks[1]
        splice = Splice(self.model, tokens_CT, spliced_at, () if self.whole else self.hooks)
        x_CTD, target_CTD = (
            (cached_CTD, cached_CTD) if self.whole else (splice.acts[name] for name in self.hooks)
        )
        rest_CTD = splice.acts[spliced_at] - target_CTD
        owner_N, owner_P = documents_CT[counted_CT], documents_CT[predicting(counted_CT)]
        target_ND = target_CTD[counted_CT]
        measured, replacements = {}, {}
        for name, reconstruct in self.rows.items():
            source_CTD = x_CTD if name in self.coded else target_CTD
            x_hat_ND, l0_N, code = reconstruct(source_CTD[counted_CT])
            measured[name] = x_hat_ND, l0_N
            replacements[name] = rest_CTD.clone()
            replacements[name][counted_CT] += x_hat_ND
            if name == "sae" and code is not None:
                self.fired[name].add(owner_N, code)
        compared = spliced(splice, replacements, counted_CT)
        losses = {name: each.loss for name, each in compared.items()}
        for name, (x_hat_ND, l0_N) in measured.items():
            self.sums[name].add(owner_N, _per_token(target_ND, x_hat_ND, l0_N))
            self.sums[name].add(owner_P, _per_prediction(losses, name, compared[name].kl))
        self.fired["random_init"].add(owner_N, self.untrained.encode(x_CTD[counted_CT]))


@torch.no_grad()
def evaluate(
    sae: SAE,
    cache: Cache,
    model: Any,
    *,
    n_tokens: int = 200_000,
    seed: int = 0,
    controls: Mapping[str, SAE] | None = None,
    progress: Progress | None = None,
) -> dict:
    """The fields of report.json for an SAE in inference form on up to n_tokens held-out tokens of
    its cache.

    Each metric of `rows` is an Estimate, interval over documents; null is what an SAE that learned
    nothing gets. Of an SAE on a part of an activation (another SAE's error), the
    rest of the activation stays as the model has it. controls: further SAEs at the same hook, by
    name, measured on the same tokens (field `controls`, only if there are any). Raises UsageError
    if the SAE's width is not the cache's, the cache has no held-out document, or the SAE is a
    transcoder from a part of an activation.

    >>> _, sae, cache, model = saelab.open("runs/demo")
    >>> evaluate(sae.frozen(), cache, model)["fvu"]["value"]
    """
    source, target = sae.origin.hooks
    if cache.width(source) != sae.d_model:
        raise UsageError(
            f"the SAE has d_model={sae.d_model}, {source} of the cache {cache.width(source)}"
        )
    if cache.whole(source) and target != source:
        raise UsageError(
            f"{source} is a part of an activation: an SAE from it to {target} has no place in the "
            "model"
        )
    l0 = measured_l0(sae, cache, seed)
    run = _Evaluation(
        model,
        (source, target),
        cache.whole(source),
        {**(controls or {}), "sae": sae},
        references(cache.moments(target, "train"), l0),
        untrained(sae, cache, seed),
    )
    n_read = 0
    for chunk in cache.contexts(source, "held_out"):
        for first in range(0, len(chunk.tokens), 16):
            part = chunk.part(slice(first, first + 16))
            run.add(part)
            n_read += int(part.counted.sum())
            if progress:
                progress(n_read)
            if n_read >= n_tokens:
                return _report(run, sae, cache, seed)
    if not n_read:
        raise UsageError("the cache has no held-out contexts to evaluate on: capture more tokens")
    return _report(run, sae, cache, seed)


def _report(run: _Evaluation, sae: SAE, cache: Any, seed: int) -> dict:
    """All fields from the sums."""
    documents = run.sums["sae"].documents
    tables = {name: sums.table(documents) for name, sums in run.sums.items()}
    fired, dead_tokens = _firing(run, sae, cache, tables["sae"], seed)
    by_row = rows.table().values()
    weights_RG = weights(len(documents), seed)
    beside = {
        name: {
            row.key: over_documents(table, row.statistic, weights_RG).as_dict()
            for row in by_row
            if row.source == "reconstruction"
        }
        for name, table in tables.items()
        if name != "sae"
    }
    controls = {name: beside.pop(name) for name in run.coded if name != "sae"}
    whole = total(tables["sae"])
    return {
        **{row.key: _estimate(row, tables, fired, weights_RG).as_dict() for row in by_row},
        "ce_clean": float(metrics.cross_entropy(whole, "clean")),
        "ce_spliced": float(metrics.cross_entropy(whole, "spliced")),
        "ce_ablated": float(metrics.cross_entropy(whole, "zero")),
        "ce_mean_ablated": float(metrics.cross_entropy(whole, "mean")),
        "tokens": int(whole["tokens"]),
        "documents": len(documents),
        "dead_tokens": dead_tokens,
        "n_features": sae.n_features,
        "references": beside,
        **({"controls": controls} if controls else {}),
    }


def _estimate(row: Metric, tables: dict, fired: dict, weights_RG: np.ndarray) -> Estimate:
    """A metric of the SAE, with the null that its row names."""
    by_name = tables if row.source == "reconstruction" else fired[row.source]
    null = None if row.null is None else float(row.statistic(total(by_name[row.null])))
    if row.source == "training":
        return Estimate(float(row.statistic(total(by_name["sae"]))), null=null)
    interval = over_documents if row.source == "reconstruction" else share_over_documents
    return interval(by_name["sae"], row.statistic, weights_RG, null)


def _firing(
    run: _Evaluation, sae: SAE, cache: Any, sums_G: dict, seed: int
) -> tuple[dict[str, dict], int]:
    """The sums of rows about features, by source and then by SAE; and the training tokens read."""
    documents, tokens_G = run.sums["sae"].documents, sums_G["tokens"]
    firing = {
        name: {"fired": fired.table(documents), "tokens": tokens_G}
        for name, fired in run.fired.items()
    }
    training = {
        name: {"fired": ~silent(each, training_tokens(cache, sae.origin.hook, seed)).numpy()[None]}
        for name, each in (("sae", sae), ("random_init", run.untrained))
    }
    dead_tokens = min(DEAD_TOKENS, cache.n_tokens("train"))
    return {"firing": firing, "training": training}, dead_tokens
