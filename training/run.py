"""One SAE, or cross-layer transcoder, in training: its weights, optimiser and counters, and what a
step does to them.

Shapes: B tokens, F features, D width.
"""

import contextlib
import math
from dataclasses import replace

import torch
from torch import Tensor

from saelab import ranks, scaling
from saelab.budgets import Zipf, fit_zipf
from saelab.coder import Coder
from saelab.errors import FailedRun
from saelab.kernels import backend
from saelab.sae import SAE
from saelab.sparsify import Choice
from saelab.token_norm import TokenNorm, normalised

from . import aim, dead, distributed, fused, revival, updates, updating
from .begin import Widths, budget, measured, new_sae
from .config import Config
from .counters import Counters
from .scale import Scale
from .step import Step

LEVEL_TOKENS = 8192  # for the first levels of a threshold that learns them
PROBE_TOKENS = 16
REACH = 10.0  # times the rate, the share of itself by which a dead feature's level falls in a step
NORMS: dict[str, TokenNorm] = {"none": "", "token": "layer_norm"}


class Run:
    """The state of one run. `step` changes it; `state` and `load_state` carry all of it through a
    checkpoint.

    widths: of the hooks that lie side by side in the input and in the target, where there are
    several.
    """

    def __init__(
        self,
        config: Config,
        first_BD: Tensor,
        first_target_BD: Tensor,
        widths: Widths = ((), ()),
    ) -> None:
        self.config, self.layout = config, distributed.of(config)
        raw_BD, same = first_BD, first_target_BD is first_BD
        first_BD = self._normalised(raw_BD)
        first_target_BD = first_BD if same else first_target_BD
        sizes = (first_BD.shape[1], first_target_BD.shape[1])
        sample = ranks.at_first(lambda: measured(first_BD, first_target_BD, widths))
        self.scale, median_D = sample[0].to(config.place), sample[1]
        self.sae = new_sae(config, *sizes, self.layout.part).to(config.place)
        self.sae.b_dec.data.copy_(median_D)
        if aim.due(config):
            tokens = slice(aim.n_tokens(config))
            given = [raw[tokens].to(config.place) for raw in (first_BD, first_target_BD)]
            scaled = (given[0] / self.scale.input, given[1] / self.scale.target)
            aim.aim(self.sae, aim.form_of(config), *scaled, self.layout)
        if self.sae.learns_levels:
            self._start_levels(first_BD[:LEVEL_TOKENS].to(config.place) / self.scale.input)
        self.probe = raw_BD[:PROBE_TOKENS].clone()
        self.optimiser = updating.for_run(config, self.sae, self.layout)
        self.average = (
            {name: p.detach().float().clone() for name, p in self.sae.named_parameters()}
            if config.ema
            else {}
        )
        self.counters = Counters(config, len(self.sae.layers))
        self.budget_F = budget(config, Zipf(), self.counters.density())
        self.aux_dtype = fused.aux_dtype(config, self.sae.b_dec.device)
        self.n_done = self.n_revived = 0

    def _normalised(self, x_BD: Tensor) -> Tensor:
        """Activations as the SAE is trained on them, but for the scale."""
        return normalised(x_BD, NORMS[self.config.normalise]).x

    @torch.no_grad()
    def _start_levels(self, x_BD: Tensor) -> None:
        """Levels that let k pairs per token through from the start, instead of half of them all."""
        sae = self.sae
        assert isinstance(sae, SAE)  # others have a budget
        centred_BD = (x_BD if sae.transcoder else x_BD - sae.b_dec.float()).contiguous()
        weights = (sae.W_enc.float(), sae.b_enc.float())
        assert sae.levels is not None
        sae.levels.copy_(self.layout.first_levels(centred_BD, *weights, self.config.k))

    def rate(self) -> float:
        """The learning rate of the coming step: linear warm-up, constant, linear decay to 0."""
        c, step = self.config, self.n_done
        up = (step + 1) / max(1, round(c.warm_up * c.n_steps))
        down = (c.n_steps - step) / max(1, round(c.decay * c.n_steps))
        width = self.sae.d_model // len(self.sae.layers)
        return c.learning_rate(width) * min(1.0, up, down)

    def step(self, x_BD: Tensor, target_BD: Tensor, grad_BD: Tensor | None = None) -> Step:
        """One optimiser step on raw activations. Raises FailedRun if the loss is not finite, before
        any weight has changed."""
        with backend(self.config.backend) if self.config.backend else contextlib.nullcontext():
            device, rows = self.sae.b_dec.device, self.layout.rows
            scaled_BD = self._normalised(rows(x_BD, device)) / self.scale.input
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
        extras = self._aux(batch.x, forward, rare_F)
        aux = sum((extra.loss for extra in extras if extra is not None), 0.0)
        terms = forward.terms | ({"aux": aux} if config.aux else {})
        total = forward.loss + config.aux * terms.get("aux", 0.0)
        if not math.isfinite(total):
            loss, number = float(total), self.n_done + 1
            raise FailedRun(
                f"the loss is {loss} at step {number}; the last good checkpoint is kept"
            )
        dead, dense, rate = self.counters.dead(), self.counters.dense(), self.rate()
        self.optimiser.update(rate, self.n_done + 1, extras)
        self._lower(rate)
        fired_F = self.layout.fired(forward.fired)
        self.counters.count(fired_F, config.batch)
        self._average()
        if revival.due(config, self.n_done + 1):
            self.n_revived += revival.revive(self, batch.x, forward.error())
        self.n_done += 1
        l0 = fired_F.sum().double() / config.batch
        return Step(total, terms, l0, dead, dense, self.n_revived, certified, rate)

    @torch.no_grad()
    def _lower(self, rate: float) -> None:
        """Bring learned levels within reach of features that are dead: no token lies near such a
        level, so that no gradient moves it."""
        if self.sae.levels is not None and self.sae.learns_levels:
            dead_F = self.counters.silent_F[self.layout.part] >= self.counters.window
            self.sae.levels.mul_(torch.where(dead_F, max(0.0, 1 - REACH * rate), 1.0))

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
        self.sae.sparsify = form  # type: ignore[assignment]
        return batch._replace(budget=self.budget_F)

    def _aux(
        self, x_BD: Tensor, forward: updates.Forward, rare_F: Tensor
    ) -> "list[updates.Extra | None]":
        """AuxK of each layer, see `dead.extra`."""
        sae, layers = self.sae, self.sae.layers
        centred_BD = x_BD if sae.transcoder else x_BD - sae.b_dec.detach()
        share = 1 / len(layers)
        tools = dead.Tools(self.config, self.layout, sae.sparsify.signed, share, self.aux_dtype)
        columns = [t.chunk(len(layers)) for t in (self.counters.silent_F, rare_F)]
        inputs = centred_BD.chunk(len(layers), 1)
        return [
            dead.extra(tools, layer, x_BD, forward.error, silent_F, rare_F)
            for layer, x_BD, silent_F, rare_F in zip(layers, inputs, *columns, strict=True)
        ]

    def _average(self) -> None:
        """Move the average of the weights towards them; from the first step on it averages over the
        steps done so far."""
        decay = min(self.config.ema or 0.0, self.n_done / (self.n_done + 1))
        for name, average in self.average.items():
            average.lerp_(self.sae.get_parameter(name).detach().float(), 1 - decay)

    def final(self) -> Coder | None:
        """The SAE to save, in float32 and in training form, on raw activations: the average of the
        weights if there is one. Of several ranks the first one has it, the others None."""
        weights = self.layout.whole({**self.sae.state_dict(), **self.average})
        if weights is None:
            return None
        sae = new_sae(replace(self.config, dtype="float32"), self.sae.d_model, len(self.sae.b_dec))
        sae.load_state_dict(weights)
        sae.normalise_decoder()
        scaling.fold(sae, self.scale.input, self.scale.target)
        if isinstance(sae, SAE):
            sae.token_norm = NORMS[self.config.normalise]
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
            "n_revived": torch.tensor(self.n_revived),
            "aux_bfloat16": torch.tensor(self.aux_dtype == torch.bfloat16),
            "scale": self.scale.flat(),
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
            # A JumpReLU's checkpoint of earlier versions: all its features moved in the last step.
            value.copy_(tensors.get(f"adam.{name}", tensors["n_done"]))
        for name, value in self.average.items():
            value.copy_(tensors[f"average.{name}"])
        self.counters.load_state(tensors)
        self.budget_F = tensors.get("budget")
        self.probe, self.n_done = probe, int(tensors["n_done"])
        self.n_revived = int(tensors.get("n_revived", 0))
        if "aux_bfloat16" in tensors:  # what this machine's probe finds may differ
            self.aux_dtype = torch.bfloat16 if tensors["aux_bfloat16"] else torch.float32
        self.scale = Scale.of(tensors["scale"], self.sae.d_model)
