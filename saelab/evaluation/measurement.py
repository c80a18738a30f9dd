"""What a report is made of: sums by document of an SAE, its controls and its references, measured
on the same tokens.

Shapes: C contexts, T positions, D width, N tokens, P predictions.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from saelab import joint
from saelab.activations import Cache, Contexts
from saelab.code import Code
from saelab.coder import Coder
from saelab.cross_layer import CrossLayerTranscoder
from saelab.errors import UsageError
from saelab.evaluation import in_turn
from saelab.evaluation.downstream import Splice, predicting, spliced
from saelab.evaluation.firing import Firings
from saelab.evaluation.outputs import Outputs
from saelab.evaluation.references import Reconstruct, coded
from saelab.models import heads, running
from saelab.statistics import DocumentSums

CONTEXTS = 16  # measured at once, at most
NO_MODEL = "there is no model, its activations were given"
NO_TOKENS = "the model predicts no tokens"
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
    """Sums by document of SAEs at one place, and of references, over chunks of contexts.

    hooks: what the SAEs read and what they explain; whole: the hook of whose activation they
    explain a part that the model has no hook for, such as another SAE's error (None: they explain
    all of it). untrained: counted by its firing alone (None: there is none).
    widths: of several hooks (`a+b`) that are explained, each of which is then measured by itself
    too, for the SAE called `sae`; of a cross-layer transcoder so is the model that it makes.
    watch: called with name and code of every SAE, piece by piece, in the order of the tokens.
    Without a model (None) it is the cached activations that are measured, and there are no losses;
    outputs: of a model that reads no text, whose output embedding is measured instead.
    """

    def __init__(
        self,
        model: Any,
        hooks: tuple[str, str],
        whole: str | None,
        saes: Mapping[str, Coder],
        known: dict[str, Reconstruct],
        untrained: Coder | None = None,
        watch: Callable[[str, Code], object] | None = None,
        widths: Sequence[int] = (),
        outputs: Outputs | None = None,
    ) -> None:
        self.model = model if getattr(model, "reads_text", True) else None
        if self.model is None and outputs is None and hooks[0] != hooks[1]:
            lacking = (
                "name it" if model is None else "name its inputs, --images of a model of images"
            )
            raise UsageError(
                f"an SAE from {hooks[0]} to {hooks[1]} is measured in its model: {lacking}"
            )
        self.hooks, self.whole, self.outputs = hooks, whole, outputs
        self.coded = {name: coded(sae) for name, sae in saes.items()}
        self.rows = known | self.coded
        self.untrained, self.watch = untrained, watch
        self.first = next(iter(saes.values()))
        self.weights = self.first.b_dec  # their device and dtype
        self.sums = {name: DocumentSums() for name in self.rows}
        self.of_output = {name: DocumentSums() for name in self.rows} if outputs else {}
        classifies = outputs is not None and outputs.model.classifier is not None
        self.of_classes = {name: DocumentSums() for name in self.rows} if classifies else {}
        several = joint.parts(hooks[1]) if len(widths) > 1 else []
        self.at_hook = {hook: DocumentSums() for hook in several}
        self.widths = widths
        clt = saes.get("sae") if several else None
        self.clt = clt if isinstance(clt, CrossLayerTranscoder) else None
        self.replaced = DocumentSums()
        counted = {**saes, **({"untrained": untrained} if untrained else {})}
        self.fired = {name: Firings(sae.n_features) for name, sae in counted.items()}

    @cached_property
    def no_losses(self) -> str:
        """Why the model has no losses; "" if it has."""
        if self.model is not None:
            return heads.why_no_losses(self.model)
        return NO_TOKENS if self.outputs else NO_MODEL

    @property
    def absent(self) -> set[str]:
        """The sources of rows that are not measured here."""
        absent = {"prediction"} if self.no_losses else set()
        absent |= set() if self.of_output else {"output"}
        return absent | (set() if self.of_classes else {"classes"})

    def add(self, chunk: Contexts) -> None:
        """Run the model clean and with every row spliced in, and add what was measured; the cached
        activations are read only for a part."""
        _, cached_CTD, documents_CT, counted_CT = chunk
        spliced_at = self.whole or self.hooks[1]
        splice, acts = self._run(chunk, spliced_at)
        acts = {name: acts_CTD.to(self.weights) for name, acts_CTD in acts.items()}
        cached_CTD = cached_CTD.to(self.weights) if self.whole else cached_CTD
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
            if name in self.fired and code is not None:
                self.fired[name].add(owner_N, code)
                self._watched(name, code)
        for name, (x_hat_ND, l0_N) in measured.items():
            self.sums[name].add(owner_N, per_token(target_ND, x_hat_ND, l0_N))
        if self.at_hook:
            self._add_hooks(owner_N, target_ND, *measured["sae"])
        if self.untrained:
            self.fired["untrained"].add(owner_N, self.untrained.encode(x_CTD[counted_CT]))
        if self.outputs is not None:
            self._add_outputs(self.outputs, chunk, owner_N, replacements, measured)
        if splice is None:
            return
        compared = spliced(splice, replacements, counted_CT)
        losses = {name: each.loss for name, each in compared.items()}
        for name in measured:
            self.sums[name].add(owner_P, _per_prediction(losses, name, compared[name].kl))
        for hook in self.at_hook:
            alone = {name: replacements[name] for name in ("sae", "zero", "mean")}
            one = spliced(splice, alone, counted_CT, hook)
            losses = {name: each.loss for name, each in one.items()}
            self.at_hook[hook].add(owner_P, _per_prediction(losses, "sae", one["sae"].kl))
        if self.clt is not None:
            alone = in_turn.compared(splice, self.clt, counted_CT)
            losses = {name: each.loss for name, each in (compared | {"sae": alone}).items()}
            self.replaced.add(owner_P, _per_prediction(losses, "sae", alone.kl))

    def _add_outputs(
        self,
        outputs: Outputs,
        chunk: Contexts,
        owner_N: Tensor,
        replacements: Mapping[str, Tensor],
        measured: Mapping[str, tuple[Tensor, Tensor]],
    ) -> None:
        """What comes out of the model with each row in place."""
        effect = outputs.of(chunk, self.hooks[1], replacements)
        for name, spliced_ND in effect.spliced.items():
            sums = per_token(effect.clean, spliced_ND, measured[name][1])
            self.of_output[name].add(owner_N, sums)
        for name, kl_C in effect.kl.items():
            sums = {"predictions": torch.ones_like(kl_C), "kl": kl_C}
            self.of_classes[name].add(chunk.documents[:, 0], sums)

    def _add_hooks(
        self, owner_N: Tensor, target_ND: Tensor, x_hat_ND: Tensor, l0_N: Tensor
    ) -> None:
        """What is missed at each of several hooks."""
        pairs = zip(*(t.split([*self.widths], 1) for t in (target_ND, x_hat_ND)), strict=True)
        for sums, (x_ND, made_ND) in zip(self.at_hook.values(), pairs, strict=True):
            sums.add(owner_N, per_token(x_ND, made_ND, l0_N))

    def read(
        self, cache: Cache, n_tokens: int, progress: Callable[[int], None] | None = None
    ) -> None:
        """`add` held-out contexts of a cache until n_tokens of them are read. Raises UsageError if
        there is none."""
        n_read = 0
        for chunk in cache.contexts(self.hooks[0], "held_out"):
            size = self.at_once(chunk.tokens.shape[1])
            for first in range(0, len(chunk.tokens), CONTEXTS):
                part = chunk.part(slice(first, first + CONTEXTS))
                for begin in range(0, len(part.tokens), size):
                    self.add(part.part(slice(begin, begin + size)))
                n_read += int(part.counted.sum())
                if progress:
                    progress(n_read)
                if n_read >= n_tokens:
                    return
        if not n_read:
            raise UsageError(
                "the cache has no held-out contexts to evaluate on: capture more tokens"
            )

    def _watched(self, name: str, code: Code) -> None:
        if self.watch:
            self.watch(name, code)

    def _run(self, chunk: Contexts, hook: str) -> tuple[Splice | None, dict[str, Tensor]]:
        """The clean run, ready to be spliced at the hook unless there are no losses, and its
        activations; without a model the cached ones."""
        tokens_CT, cached_CTD, *_ = chunk
        names = dict.fromkeys([hook, *(() if self.whole else self.hooks)])
        points = [part for name in names for part in joint.parts(name)]
        if self.model is None and self.outputs is not None and len(names) > 1:
            return None, self.outputs.acts(chunk, [*names])
        if self.model is None:
            return None, {name: cached_CTD for name in names}
        if not self.no_losses:
            splice = Splice(self.model, tokens_CT, hook, [*names])
            return splice, splice.acts
        acts = running.read(self.model, tokens_CT, points)
        flat = {name: acts[name].flatten(2) for name in points}
        beside = joint.beside
        return None, {name: beside([flat[part] for part in joint.parts(name)]) for name in names}

    def at_once(self, context: int) -> int:
        """How many contexts are measured at once."""
        return at_once(self.model, context, len(self.rows), self.first.d_model)


def at_once(model: Any, context: int, n_rows: int, width: int = 0) -> int:
    """How many contexts are measured at once: each row holds what it puts in place and how the run
    ends with it. width: of what it puts in place where there is no model."""
    fits = CONTEXTS
    if model is not None:
        fits = running.contexts_per_pass(model, context, logits=not heads.head(model))
        width = model.cfg.d_model
    return max(1, min(CONTEXTS, fits, FLOATS // (2 * (n_rows + 2) * width * context)))
