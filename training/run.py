"""One SAE in training: its weights, optimiser and counters, and what a step does to them.

Shapes: B tokens, F features, D width.
"""

import contextlib
import math
from typing import NamedTuple

import torch
from torch import Tensor

from saelab import losses
from saelab.errors import FailedRun
from saelab.kernels import backend, column_sums
from saelab.sae import SAE
from saelab.sparsify import named
from training import updates
from training.config import Config

GEOMETRIC_MEDIAN_TOKENS = 32_768
PROBE_TOKENS = 16


class Step(NamedTuple):
    """What one step measured. fvu: of this batch, training form. l0: pairs with non-zero value per token. dead: share of F."""

    loss: float
    fvu: float
    l0: float
    dead: float
    aux: float
    lr: float


class Scale(NamedTuple):
    """One number that input (and target) are divided by so that the mean squared norm is D; variance of the scaled target."""

    input: float
    target: float
    variance: float


def scale_of(x_BD: Tensor, target_BD: Tensor) -> Scale:
    """The scale of a sample of tokens (DESIGN: the first 100k)."""
    s_in, s_out = (float((t.square().sum(1).mean() / t.shape[1]).sqrt()) or 1.0 for t in (x_BD, target_BD))
    variance = float((target_BD - target_BD.mean(0)).square().sum(1).mean()) / s_out**2
    return Scale(s_in, s_out, variance)


def geometric_median(x_BD: Tensor, iterations: int = 20) -> Tensor:
    """The point with the least summed distance to the rows (Weiszfeld's iteration), [D]."""
    point_D = x_BD.mean(0)
    for _ in range(iterations):
        weights_B = 1 / (x_BD - point_D).norm(dim=1).clamp_min(1e-8)
        point_D = (weights_B[:, None] * x_BD).sum(0) / weights_B.sum()
    return point_D


class Run:
    """The state of one run. `step` changes it; `state` and `load_state` carry all of it through a checkpoint."""

    def __init__(self, config: Config, first_BD: Tensor, first_target_BD: Tensor) -> None:
        self.config = config
        self.scale = scale_of(first_BD, first_target_BD)
        self.sae = SAE(
            first_BD.shape[1],
            config.features,
            named(config.sparsify, config.k),
            d_out=first_target_BD.shape[1],
            transcoder=config.target is not None,
            seed=config.seed,
        )
        sample_BD = first_target_BD[:GEOMETRIC_MEDIAN_TOKENS] / self.scale.target
        self.sae.b_dec.data.copy_(geometric_median(sample_BD))
        self.probe = first_BD[:PROBE_TOKENS].clone()
        self.optimiser = updates.for_run(config, self.sae)
        self.silent_F = torch.zeros(config.features, dtype=torch.int64)
        self.n_done = 0

    def rate(self) -> float:
        """The learning rate of the coming step: linear warm-up, constant, linear decay to 0."""
        c, step = self.config, self.n_done
        up = (step + 1) / max(1, round(c.warm_up * c.n_steps))
        down = (c.n_steps - step) / max(1, round(c.decay * c.n_steps))
        return c.learning_rate * min(1.0, up, down)

    def step(self, x_BD: Tensor, target_BD: Tensor, grad_BD: Tensor | None = None) -> Step:
        """One optimiser step on raw activations. Raises FailedRun if the loss is not finite, before any weight has changed."""
        with backend(self.config.backend) if self.config.backend else contextlib.nullcontext():
            return self._step(x_BD / self.scale.input, target_BD / self.scale.target, grad_BD)

    def _step(self, x_BD: Tensor, target_BD: Tensor, grad_BD: Tensor | None) -> Step:
        config = self.config
        forward = self.optimiser.forward(x_BD, target_BD, self.scale.variance, grad_BD)
        dead_F = self.silent_F >= config.window
        extra = self._aux(x_BD, forward.error_BD, dead_F)
        aux = 0.0 if extra is None else extra.loss
        total = forward.fvu + config.aux * aux
        if not math.isfinite(total):
            raise FailedRun(f"the loss is {total} at step {self.n_done + 1}; the last good checkpoint is kept")
        rate = self.rate()
        self.optimiser.update(rate, self.n_done + 1, extra)
        fired_F = column_sums(forward.code)[1]
        self.silent_F = torch.where(fired_F > 0, 0, self.silent_F + len(x_BD))
        self.n_done += 1
        return Step(total, forward.fvu, int(fired_F.sum()) / len(x_BD), float(dead_F.float().mean()), aux, rate)

    def _aux(self, x_BD: Tensor, error_BD: Tensor, dead_F: Tensor) -> "updates.Extra | None":
        """AuxK over the features silent longest, at most max(1024, 4 k_aux) of them, and its gradients; None if none is dead."""
        n_dead = int(dead_F.sum())
        if not n_dead or not self.config.aux:
            return None
        sae, k_aux = self.sae, self.config.k_aux or x_BD.shape[1] // 2
        rows_A = torch.where(dead_F, self.silent_F, -1).topk(min(n_dead, max(1024, 4 * k_aux))).indices.sort().values
        weights = [w.detach()[rows_A].requires_grad_() for w in (sae.W_enc, sae.b_enc, sae.W_dec)]
        centred_BD = x_BD if sae.transcoder else x_BD - sae.b_dec.detach()
        loss = losses.aux_k(centred_BD, error_BD, weights[0], weights[1], weights[2], k_aux)
        dW_enc, db_enc, dW_dec = torch.autograd.grad(self.config.aux * loss, weights)
        return updates.Extra(loss.item(), rows_A, dW_enc, db_enc, dW_dec)

    def state(self) -> dict[str, Tensor]:
        """Every tensor the run's future depends on, by name."""
        tensors = {f"sae.{name}": value for name, value in self.sae.state_dict().items()}
        for name, pair in self.optimiser.moments().items():
            tensors |= {f"adam.{name}.first": pair[0], f"adam.{name}.second": pair[1]}
        numbers = {"n_done": torch.tensor(self.n_done), "scale": torch.tensor(self.scale, dtype=torch.float64)}
        return tensors | {"silent": self.silent_F, "probe": self.probe} | numbers

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.sae.load_state_dict({k.removeprefix("sae."): v for k, v in tensors.items() if k.startswith("sae.")})
        for name, pair in self.optimiser.moments().items():
            for moment, part in zip(pair, ("first", "second"), strict=True):
                moment.copy_(tensors[f"adam.{name}.{part}"])
        self.silent_F, self.probe = tensors["silent"].clone(), tensors["probe"].clone()
        self.n_done = int(tensors["n_done"])
        self.scale = Scale(*tensors["scale"].tolist())
