"""One SAE in training: its weights, optimiser and counters, and what a step does to them.

Shapes: B tokens, F features, D width.
"""

import contextlib
import math
from dataclasses import replace

import torch
from torch import Tensor

from saelab import ranks, scaling
from saelab.budgets import Zipf, fit_zipf, whole
from saelab.errors import FailedRun
from saelab.kernels import backend, column_sums
from saelab.sae import SAE
from saelab.sparsify import Choice

from . import distributed, fused, losses, updates
from .config import Config
from .counters import Counters
from .scale import Scale, geometric_median, scale_of
from .step import Step

GEOMETRIC_MEDIAN_TOKENS = 32_768
LEVEL_TOKENS = 8192  # for the first levels of a threshold that learns them
PROBE_TOKENS = 16
EVERYTHING = slice(None)


class Run:
    """The state of one run. `step` changes it; `state` and `load_state` carry all of it through a
    checkpoint."""

    def __init__(self, config: Config, first_BD: Tensor, first_target_BD: Tensor) -> None:
        self.config, self.layout = config, distributed.of(config)
        widths = (first_BD.shape[1], first_target_BD.shape[1])
        self.scale, median_D = ranks.at_first(lambda: _measured(first_BD, first_target_BD))
        self.sae = new_sae(config, *widths, self.layout.part).to(config.place)
        self.sae.b_dec.data.copy_(median_D)
        if self.sae.learns_levels:
            self._start_levels(first_BD[:LEVEL_TOKENS].to(config.place) / self.scale.input)
        self.probe = first_BD[:PROBE_TOKENS].clone()
        self.optimiser = updates.for_run(config, self.sae, self.layout)
        self.average = (
            {name: p.detach().float().clone() for name, p in self.sae.named_parameters()}
            if config.ema
            else {}
        )
        self.counters = Counters(config)
        self.budget_F = budget(config, Zipf(), self.counters.density())
        self.n_done = 0

    @torch.no_grad()
    def _start_levels(self, x_BD: Tensor) -> None:
        """Levels that let k pairs per token through from the start, instead of half of them all."""
        sae = self.sae
        centred_BD = (x_BD if sae.transcoder else x_BD - sae.b_dec.float()).contiguous()
        weights = (sae.W_enc.float(), sae.b_enc.float())
        assert sae.levels is not None
        sae.levels.copy_(self.layout.first_levels(centred_BD, *weights, self.config.k))

    def rate(self) -> float:
        """The learning rate of the coming step: linear warm-up, constant, linear decay to 0."""
        c, step = self.config, self.n_done
        up = (step + 1) / max(1, round(c.warm_up * c.n_steps))
        down = (c.n_steps - step) / max(1, round(c.decay * c.n_steps))
        return c.learning_rate(self.sae.d_model) * min(1.0, up, down)

    def step(self, x_BD: Tensor, target_BD: Tensor, grad_BD: Tensor | None = None) -> Step:
        """One optimiser step on raw activations. Raises FailedRun if the loss is not finite, before
        any weight has changed."""
        with backend(self.config.backend) if self.config.backend else contextlib.nullcontext():
            device, rows = self.sae.W_enc.device, self.layout.rows
            scaled_BD = rows(x_BD, device) / self.scale.input
            same = target_BD is x_BD
            target_BD = scaled_BD if same else rows(target_BD, device) / self.scale.target
            grad_BD = None if grad_BD is None else rows(grad_BD, device)
            return self._step(updates.Batch(scaled_BD, target_BD, grad_BD))

    def _step(self, batch: updates.Batch) -> Step:
        config = self.config
        fused.certified()  # what others have screened since the last step is none of this one's
        forward = self.optimiser.forward(self._spent(batch), self.scale.variance)
        certified = fused.certified()
        rare_F = self.counters.rare()
        extra = self._aux(batch.x, forward, rare_F)
        terms = forward.terms | (
            {"aux": 0.0 if extra is None else extra.loss} if config.aux else {}
        )
        total = forward.loss + config.aux * terms.get("aux", 0.0)
        if not math.isfinite(total):
            loss, number = float(total), self.n_done + 1
            raise FailedRun(
                f"the loss is {loss} at step {number}; the last good checkpoint is kept"
            )
        dead, dense, rate = self.counters.dead(), self.counters.dense(), self.rate()
        self.optimiser.update(rate, self.n_done + 1, extra)
        fired_F = self.layout.fired(column_sums(forward.code)[1])
        self.counters.count(fired_F, config.batch)
        self._average()
        self.n_done += 1
        l0 = fired_F.sum().double() / config.batch
        return Step(total, terms, l0, dead, dense, certified, rate)

    def _spent(self, batch: updates.Batch) -> updates.Batch:
        """The batch with this step's feature budget; the SAE's sparsifier is set to this step's
        too, as both change under way."""
        config, form = self.config, self.config.form
        if isinstance(form, Choice) and form.over == "feature":
            switch = round(config.mutual * config.n_steps)
            if self.n_done < switch:
                form = replace(form, over="batch")
            elif self.n_done == switch and switch:
                density_F = self.counters.density()
                self.budget_F = budget(config, fit_zipf(density_F), density_F)
        if config.loss == "multi-k":
            form = replace(form, k=4 * config.k)
        self.sae.sparsify = form
        return batch._replace(budget=self.budget_F)

    def _aux(
        self, x_BD: Tensor, forward: updates.Forward, rare_F: Tensor
    ) -> "updates.Extra | None":
        """AuxK over the features silent longest, at most max(1024, 4 k_aux) of them, and its
        gradients; None if none is rare."""
        n_rare = int(rare_F.sum())
        if not n_rare or not self.config.aux:
            return None
        sae, k_aux = self.sae, self.config.k_aux or x_BD.shape[1] // 2
        silent_F = torch.where(rare_F, self.counters.silent_F, -1)
        rows_A = silent_F.topk(min(n_rare, max(1024, 4 * k_aux))).indices.sort().values
        rows_A = self.layout.mine(rows_A)
        W_enc, b_enc, W_dec = weights = [
            _at_least_float32(w.detach()[rows_A]).requires_grad_()
            for w in (sae.W_enc, sae.b_enc, sae.W_dec)
        ]
        centred_BD = x_BD if sae.transcoder else x_BD - sae.b_dec.detach()
        with fused.quick_products(self.config, sae.W_enc.device):
            loss = losses.aux_k(
                centred_BD.to(W_enc.dtype),
                forward.error().to(W_enc.dtype),
                W_enc,
                b_enc,
                W_dec,
                k_aux,
                sae.sparsify.signed,
                self.layout,
            )
        dW_enc, db_enc, dW_dec = torch.autograd.grad(self.config.aux * loss, weights)
        return updates.Extra(updates.unread(loss), rows_A, dW_enc, db_enc, dW_dec)

    def _average(self) -> None:
        """Move the average of the weights towards them; from the first step on it averages over the
        steps done so far."""
        decay = min(self.config.ema or 0.0, self.n_done / (self.n_done + 1))
        for name, average in self.average.items():
            average.lerp_(self.sae.get_parameter(name).detach().float(), 1 - decay)

    def final(self) -> SAE | None:
        """The SAE to save, in float32 and in training form, on raw activations: the average of the
        weights if there is one. Of several ranks the first one has it, the others None."""
        weights = self.layout.whole({**self.sae.state_dict(), **self.average})
        if weights is None:
            return None
        sae = new_sae(replace(self.config, dtype="float32"), self.sae.d_model, len(self.sae.b_dec))
        sae.load_state_dict(weights)
        sae.normalise_decoder()
        scaling.fold(sae, self.scale.input, self.scale.target)
        return sae

    def state(self) -> dict[str, Tensor]:
        """Every tensor the run's future depends on, by name."""
        tensors = {f"sae.{name}": value for name, value in self.sae.state_dict().items()}
        for name, pair in self.optimiser.moments().items():
            tensors |= {f"adam.{name}.first": pair[0], f"adam.{name}.second": pair[1]}
        tensors |= {f"adam.{name}": value for name, value in self.optimiser.more().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        tensors |= {} if self.budget_F is None else {"budget": self.budget_F}
        numbers = {
            "n_done": torch.tensor(self.n_done),
            "scale": torch.tensor(self.scale, dtype=torch.float64),
        }
        return tensors | self.counters.state() | {"probe": self.probe} | numbers

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        probe, device = tensors["probe"].clone(), self.config.place
        tensors = {name: value.to(device) for name, value in tensors.items()}
        self.sae.load_state_dict(
            {k.removeprefix("sae."): v for k, v in tensors.items() if k.startswith("sae.")}
        )
        for name, pair in self.optimiser.moments().items():
            for moment, part in zip(pair, ("first", "second"), strict=True):
                moment.copy_(tensors[f"adam.{name}.{part}"])
        for name, value in self.optimiser.more().items():
            value.copy_(tensors[f"adam.{name}"])
        for name, value in self.average.items():
            value.copy_(tensors[f"average.{name}"])
        self.counters.load_state(tensors)
        self.budget_F = tensors.get("budget")
        self.probe, self.n_done = probe, int(tensors["n_done"])
        self.scale = Scale(*tensors["scale"].tolist())


def new_sae(config: Config, d_model: int, d_out: int, part: slice = EVERYTHING) -> SAE:
    """The untrained SAE of a configuration, or some of its features."""
    shape = {
        "d_out": d_out,
        "transcoder": config.target is not None,
        "skip": config.skip,
        "seed": config.seed,
        "part": part,
    }
    form = config.form  # whose k may be more than the features of a part
    held = replace(form, k=1) if isinstance(form, Choice) else form
    sae = SAE(d_model, config.features, held, **shape).to(getattr(torch, config.dtype))
    sae.sparsify = form
    return sae


def _measured(x_BD: Tensor, target_BD: Tensor) -> tuple[Scale, Tensor]:
    """The scale of a sample of tokens, and the target's geometric median so scaled."""
    scale = scale_of(x_BD, target_BD)
    return scale, geometric_median(target_BD[:GEOMETRIC_MEDIAN_TOKENS] / scale.target)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def budget(config: Config, law: Zipf, density_F: Tensor) -> Tensor | None:
    """[F] int64: pairs per feature of a batch by the law at each feature's rank; None for the
    default, equal shares."""
    if config.shares == "equal":
        return None
    return whole(law.expected(density_F), config.k * config.batch, config.batch)
