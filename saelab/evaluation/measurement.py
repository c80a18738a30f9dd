"""What a report is made of: sums by document of an SAE, its controls and its references, measured
on the same tokens.

Shapes: C contexts, T positions, D width, N tokens, P predictions.
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from saelab.activations import Contexts
from saelab.evaluation.downstream import Splice, predicting, spliced
from saelab.evaluation.firing import Firings
from saelab.evaluation.references import Reconstruct, coded
from saelab.models import heads, running
from saelab.sae import SAE
from saelab.statistics import DocumentSums

CONTEXTS = 16  # measured at once, at most
FLOATS = 1 << 28  # of activations of all rows together, at once: 1 GB


def per_token(x_ND: Tensor, x_hat_ND: Tensor, l0_N: Tensor) -> dict[str, Tensor]:
    """The sums of `metrics` that belong to tokens."""
    norms_N = x_ND.norm(dim=1) * x_hat_ND.norm(dim=1)
    return {
        "tokens": x_ND.new_ones(len(x_ND)),
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
    return {"predictions": torch.ones_like(kl_P), "spliced": losses[name], "kl": kl_P, **ablated}


class Measurement:
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

    @cached_property
    def no_losses(self) -> str:
        """Why the model has no losses; "" if it has."""
        return heads.why_no_losses(self.model)

    def add(self, chunk: Contexts) -> None:
        """Run the model clean and with every row spliced in, and add what was measured; the cached
        activations are read only for a part."""
        tokens_CT, cached_CTD, documents_CT, counted_CT = chunk
        spliced_at = self.whole or self.hooks[1]
        splice, acts = self._run(tokens_CT, spliced_at)
        weights = self.untrained.W_enc  # on its device and in its dtype everything is computed
        acts = {name: acts_CTD.to(weights) for name, acts_CTD in acts.items()}
        cached_CTD = cached_CTD.to(weights) if self.whole else cached_CTD
        x_CTD, target_CTD = (
            (cached_CTD, cached_CTD) if self.whole else (acts[name] for name in self.hooks)
        )
        rest_CTD = acts[spliced_at] - target_CTD
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
        for name, (x_hat_ND, l0_N) in measured.items():
            self.sums[name].add(owner_N, per_token(target_ND, x_hat_ND, l0_N))
        self.fired["random_init"].add(owner_N, self.untrained.encode(x_CTD[counted_CT]))
        if splice is None:
            return
        compared = spliced(splice, replacements, counted_CT)
        losses = {name: each.loss for name, each in compared.items()}
        for name in measured:
            self.sums[name].add(owner_P, _per_prediction(losses, name, compared[name].kl))

    def _run(self, tokens_CT: Tensor, hook: str) -> tuple[Splice | None, dict[str, Tensor]]:
        """The clean run, ready to be spliced at the hook unless there are no losses, and its
        activations."""
        names = dict.fromkeys([hook, *(() if self.whole else self.hooks)])
        if not self.no_losses:
            splice = Splice(self.model, tokens_CT, hook, [*names])
            return splice, splice.acts
        acts = running.read(self.model, tokens_CT, [*names])
        return None, {name: acts[name].flatten(2) for name in names}

    def at_once(self, context: int) -> int:
        """How many contexts are measured at once."""
        return at_once(self.model, context, len(self.rows))


def at_once(model: Any, context: int, n_rows: int) -> int:
    """How many contexts are measured at once: each row holds what it puts in place and how the run
    ends with it."""
    fits = running.contexts_per_pass(model, context, logits=not heads.head(model))
    width = 2 * (n_rows + 2) * model.cfg.d_model
    return max(1, min(CONTEXTS, fits, FLOATS // (width * context)))
