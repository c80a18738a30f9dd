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
from saelab.code import Code
from saelab.errors import UsageError
from saelab.evaluation import metrics
from saelab.evaluation.controls import random_init
from saelab.evaluation.downstream import Splice, predicting, spliced
from saelab.evaluation.firing import Firings
from saelab.sae import SAE
from saelab.statistics import DocumentSums, over_documents, share_over_documents, weights
from saelab.statistics.bootstrap import total

Reconstruct = Callable[[Tensor], tuple[Tensor, Code | None]]
Progress = Callable[[int], None]


def references(target: Any, n_components: int) -> dict[str, Reconstruct]:
    """Reconstructions with known results: zero and mean (nothing recovered), identity (everything),
    PCA with L0 components.

    target: the training split's moments (n, sum [D], second [D, D]) at the hook that is replaced.
    """
    mean_D = target.sum / target.n
    covariance_DD = target.second / target.n - torch.outer(mean_D, mean_D)
    basis_DL = torch.linalg.eigh(covariance_DD).eigenvectors[:, -n_components:].float()
    mean_D = mean_D.float()
    return {
        "zero": lambda x: (torch.zeros_like(x), None),
        "mean": lambda x: (mean_D.expand_as(x), None),
        "identity": lambda x: (x, None),
        "pca": lambda x: ((x - mean_D) @ basis_DL @ basis_DL.T + mean_D, None),
    }


def _per_token(x_ND: Tensor, x_hat_ND: Tensor, code: Code | None) -> dict[str, Tensor]:
    """The sums of `metrics` that belong to tokens."""
    norms_N = x_ND.norm(dim=1) * x_hat_ND.norm(dim=1)
    fired_N = torch.zeros(len(x_ND))
    if code is not None:
        fired_N = torch.bincount(code.tokens[code.values != 0], minlength=len(x_ND))
    return {
        "tokens": torch.ones(len(x_ND)),
        "error": (x_ND - x_hat_ND).double().square().sum(1),
        "square": x_ND.double().square().sum(1),
        "l0": fired_N,
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
        rows: dict[str, Reconstruct],
    ) -> None:
        self.model, self.hooks, self.whole = model, hooks, whole
        self.coded: dict[str, Reconstruct] = {name: each.reconstruct for name, each in saes.items()}
        self.rows, sae = rows | self.coded, saes["sae"]
        self.sums = {name: DocumentSums() for name in self.rows}
        self.fired = Firings(sae.n_features)
        self.chance = (
            random_init(sae, 12345) if sae.levels is None else None
        )  # levels of another SAE mean nothing to it
        self.chance_fired_F = torch.zeros(sae.n_features)

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
        rows, replacements = {}, {}
        for name, reconstruct in self.rows.items():
            source_CTD = x_CTD if name in self.coded else target_CTD
            x_hat_ND, code = rows[name] = reconstruct(source_CTD[counted_CT])
            replacements[name] = rest_CTD.clone()
            replacements[name][counted_CT] += x_hat_ND
        compared = spliced(splice, replacements, counted_CT)
        losses = {name: each.loss for name, each in compared.items()}
        for name, (x_hat_ND, code) in rows.items():
            self.sums[name].add(owner_N, _per_token(target_ND, x_hat_ND, code))
            self.sums[name].add(owner_P, _per_prediction(losses, name, compared[name].kl))
            if name == "sae" and code is not None:
                self.fired.add(owner_N, code)
        if self.chance is not None:
            code = self.chance.encode(x_CTD[counted_CT])
            self.chance_fired_F += torch.bincount(
                code.features[code.values != 0], minlength=code.n_features
            )


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

    Each metric is {"value", "low", "high", "null"}: 95% interval over documents; null is what an
    SAE that learned nothing gets. Of an SAE on a part of an activation (another SAE's error), the
    rest of the activation stays as the model has it. controls: further SAEs at the same hook, by
    name, measured on the same tokens (field `controls`, only if there are any). Raises UsageError
    if the SAE's width is not the cache's, the cache has no held-out document, or the SAE is a
    transcoder from a part of an activation.
    """
    source, target = sae.origin.hooks
    if cache.width(source) != sae.d_model:
        raise UsageError(
            f"the SAE has d_model={sae.d_model}, {source} of the cache {cache.width(source)}"
        )
    if cache.whole(source) and target != source:
        raise UsageError(
            f"{source} is a part of an activation: an SAE from it to {target} has no place in the model"
        )
    l0 = getattr(sae.sparsify, "k", None) or 32
    rows = references(cache.moments(target, "train"), min(l0, len(sae.b_dec)))
    run = _Evaluation(
        model, (source, target), cache.whole(source), {**(controls or {}), "sae": sae}, rows
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
                return _report(run, sae, seed)
    if not n_read:
        raise UsageError("the cache has no held-out contexts to evaluate on: capture more tokens")
    return _report(run, sae, seed)


def _report(run: _Evaluation, sae: SAE, seed: int) -> dict:
    """All fields from the sums."""
    documents = run.sums["sae"].documents
    tables = {name: sums.table(documents) for name, sums in run.sums.items()}
    weights_RG = weights(len(documents), seed)
    whole = total(tables["sae"])
    nulls = {name: _metrics(tables[name], weights_RG) for name in ("mean", "zero")}
    fields = _metrics(tables["sae"], weights_RG)
    null_of = {
        "fvu": "mean",
        "cosine": "mean",
        "kl": "zero",
        "ce_recovered": "zero",
        "ce_recovered_mean": "mean",
    }
    for name, which in null_of.items():
        fields[name]["null"] = nulls[which][name]["value"]
    fired_GF = run.fired.table(documents)
    fields |= _firing(run, {"fired": fired_GF, "tokens": tables["sae"]["tokens"]}, weights_RG)
    others = {name: _metrics(table, weights_RG) for name, table in tables.items() if name != "sae"}
    beside = {name: others.pop(name) for name in run.coded if name != "sae"}
    return {
        **fields,
        "ce_clean": float(metrics.cross_entropy(whole, "clean")),
        "ce_spliced": float(metrics.cross_entropy(whole, "spliced")),
        "ce_ablated": float(metrics.cross_entropy(whole, "zero")),
        "ce_mean_ablated": float(metrics.cross_entropy(whole, "mean")),
        "tokens": int(whole["tokens"]),
        "documents": len(documents),
        "n_features": sae.n_features,
        "references": others,
        **({"controls": beside} if beside else {}),
    }


def _metrics(sums_G: metrics.Sums, weights_RG: np.ndarray) -> dict[str, dict]:
    statistics: dict[str, Callable[[metrics.Sums], np.ndarray]] = {
        "fvu": metrics.fvu,
        "l0": metrics.l0,
        "cosine": metrics.cosine,
        "ce_recovered": metrics.ce_recovered,
        "ce_recovered_mean": lambda sums: metrics.ce_recovered(sums, "mean"),
        "kl": metrics.kl,
    }
    return {name: over_documents(sums_G, f, weights_RG).as_dict() for name, f in statistics.items()}


def _firing(run: _Evaluation, sums_G: dict, weights_RG: np.ndarray) -> dict[str, dict]:
    """dead_fraction and dense_fraction with intervals; their null is an untrained SAE of the same
    shape."""
    chance = {"fired": run.chance_fired_F.numpy(), "tokens": sums_G["tokens"].sum()}
    statistics = {
        "dead_fraction": metrics.silent_fraction,
        "dense_fraction": metrics.dense_fraction,
    }
    return {
        name: share_over_documents(
            sums_G, f, weights_RG, float(f(chance)) if run.chance is not None else None
        ).as_dict()
        for name, f in statistics.items()
    }
