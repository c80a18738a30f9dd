"""What it costs an SAE that a cache rounds its activations.

Shapes: C contexts, T positions, D width, N tokens, P predictions.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelab.activations import Cache, Contexts
from saelab.activations.outliers import TIMES, outliers
from saelab.activations.stored import round_trip
from saelab.errors import UsageError
from saelab.evaluation import metrics
from saelab.evaluation.downstream import Splice, predicting, spliced
from saelab.evaluation.measurement import CONTEXTS, at_once, per_token
from saelab.evaluation.references import coded
from saelab.models import heads, running
from saelab.sae import SAE
from saelab.statistics import DocumentSums, difference, over_documents, weights
from saelab.statistics.bootstrap import total

Progress = Callable[[int], None]
Round = Callable[[Tensor], Tensor]
EXACT = "float32"
TOKENS = 100_000  # held-out tokens that decide
MOST = 0.01  # of its FVU that a dtype may add to an SAE without being advised against
ROUNDED: dict[str, Round] = {
    dtype: partial(round_trip, dtype=dtype) for dtype in ("float16", "bfloat16", "int8")
}


@torch.no_grad()
def check(
    sae: SAE,
    cache: Cache,
    model: Any,
    *,
    n_tokens: int = TOKENS,
    seed: int = 0,
    ways: Mapping[str, Round] | None = None,
    progress: Progress | None = None,
) -> dict:
    """What each dtype adds to the FVU and the cross-entropy of an SAE in inference form, on
    activations that the model computes in float32 for up to n_tokens held-out tokens of its cache.

    Of each way of rounding (ways: other functions of activations [N, D] by name) the SAE reads the
    rounded activations, and is held against the float32 ones: `fvu_added` and `ce_added` (nats, its
    reconstruction spliced in) are differences to the SAE that reads float32, `fvu_share` is that of
    the FVU itself; their intervals are paired by document. `outliers` are the dimensions of which
    int8 keeps little else; `advised` says whether there are none and fvu_share is surely below
    MOST. Raises UsageError for an SAE on a part of an activation, and a cache without held-out
    tokens.

    >>> _, sae, cache, model = saelab.open("runs/demo")
    >>> check(sae, cache, model)["dtypes"]["int8"]["fvu_share"]["value"]
    """
    source, _ = sae.origin.hooks
    if cache.whole(source):
        raise UsageError(
            f"{source} is a part of an activation, which the model does not compute: check an SAE "
            f"at {cache.whole(source)}"
        )
    run = _Run(sae, model, ROUNDED if ways is None else ways)
    n_read = 0
    for part in _parts(cache, source, run.at_once(cache.context)):
        n_read += run.add(part)
        if progress:
            progress(n_read)
        if n_read >= n_tokens:
            break
    if not n_read:
        raise UsageError("the cache has no held-out contexts to check on: capture more tokens")
    return run.result(seed) | {"cache_dtype": cache.plan.dtype}


def _parts(cache: Cache, hook: str, size: int) -> Iterator[Contexts]:
    for chunk in cache.contexts(hook, "held_out"):
        for first in range(0, len(chunk.tokens), size):
            yield chunk.part(slice(first, first + size))


class _Run:
    """Sums by document of an SAE that reads activations rounded in several ways."""

    def __init__(self, sae: SAE, model: Any, ways: Mapping[str, Round]) -> None:
        self.sae, self.model = sae, model
        self.hooks = sae.origin.hooks
        self.ways = {EXACT: torch.Tensor.float, **ways}
        self.reconstruct = coded(sae)
        self.sums = {name: DocumentSums() for name in self.ways}
        self.square_D = torch.zeros(sae.d_model, dtype=torch.float64)
        self.no_losses = heads.why_no_losses(model)
        self.overflowing: set[str] = set()  # ways that cannot hold the numbers

    def at_once(self, context: int) -> int:
        """How many contexts are measured at once."""
        return min(CONTEXTS, at_once(self.model, context, len(self.ways)))

    def add(self, chunk: Contexts) -> int:
        """Measure some contexts; the number of their tokens that count."""
        counted_CT = chunk.counted
        splice, acts = self._read(chunk.tokens)
        x_ND, target_ND = (acts[hook][counted_CT] for hook in self.hooks)
        self.square_D += x_ND.double().square().sum(0).cpu()
        replacements = {}
        for name, way in self.ways.items():
            read_ND = way(x_ND)
            if name in self.overflowing or not bool(read_ND.isfinite().all()):
                self.overflowing.add(name)
                continue
            x_hat_ND, l0_N, _ = self.reconstruct(read_ND)
            columns = per_token(target_ND, x_hat_ND, l0_N)
            self.sums[name].add(chunk.documents[counted_CT], columns)
            replacements[name] = torch.zeros_like(acts[self.hooks[1]])
            replacements[name][counted_CT] = x_hat_ND
        if splice is not None:
            owner_P = chunk.documents[predicting(counted_CT)]
            losses = spliced(splice, replacements, counted_CT)
            for name in replacements:
                loss_P = losses[name].loss
                columns = {"clean": losses["clean"].loss, "spliced": loss_P}
                columns["predictions"] = torch.ones_like(loss_P)
                self.sums[name].add(owner_P, columns)
        return len(x_ND)

    def _read(self, tokens_CT: Tensor) -> tuple[Splice | None, dict[str, Tensor]]:
        names = [*dict.fromkeys(self.hooks)]
        if not self.no_losses:
            splice = Splice(self.model, tokens_CT, self.hooks[1], names)
            return splice, splice.acts
        acts = running.read(self.model, tokens_CT, names)
        return None, {name: acts[name].flatten(2) for name in names}

    def result(self, seed: int) -> dict:
        """The fields of a document."""
        documents = self.sums[EXACT].documents
        tables = {name: sums.table(documents) for name, sums in self.sums.items()}
        exact, weights_RG = tables[EXACT], weights(len(documents), seed)
        n_tokens = int(exact["tokens"].sum())
        rms_D = (self.square_D / n_tokens).sqrt()
        large = [outlier._asdict() for outlier in outliers(rms_D)]
        dtypes = {}
        for name in self.ways:
            lost = name in self.overflowing
            mine = {key: x + np.nan for key, x in exact.items()} if lost else tables[name]
            dtypes[name] = self._added(mine, exact, weights_RG) | {"overflows": lost}
            dtypes[name]["advised"] &= not (large and name == "int8")
        return {
            "hook": self.hooks[0],
            "fvu": over_documents(exact, metrics.fvu, weights_RG).as_dict(),
            **self._losses(total(exact)),
            "dtypes": {name: dtypes[name] for name in self.ways if name != EXACT},
            "outliers": large,
            "outlier_times": TIMES,
            "tokens": n_tokens,
            "documents": len(documents),
        }

    def _losses(self, exact: metrics.Sums) -> dict[str, float | str]:
        """Cross-entropies in nats of the model and of the SAE on float32, or why there are none."""
        if self.no_losses:
            return {"no_losses": self.no_losses}
        names = ("clean", "spliced")
        return {f"ce_{name}": float(metrics.cross_entropy(exact, name)) for name in names}

    def _added(self, mine: dict, exact: dict, weights_RG: np.ndarray) -> dict[str, Any]:
        """What a way of rounding adds."""
        errors = {"error": mine["error"], "exact": exact["error"]}
        share = over_documents(errors, _share, weights_RG, null=0.0)
        added = difference(mine, exact, metrics.fvu, weights_RG)
        fields: dict[str, Any] = {"fvu_added": added.as_dict(), "fvu_share": share.as_dict()}
        if not self.no_losses:
            ce = difference(mine, exact, _spliced, weights_RG)
            fields["ce_added"] = ce.as_dict()
        return fields | {"advised": share.below(MOST)}


def _share(sums: metrics.Sums) -> np.ndarray:
    """By how much of itself a squared error is larger than the exact one: of FVUs the same, as what
    they are divided by is."""
    return metrics.ratio(sums["error"] - sums["exact"], sums["exact"])


def _spliced(sums: metrics.Sums) -> np.ndarray:
    return metrics.cross_entropy(sums, "spliced")
