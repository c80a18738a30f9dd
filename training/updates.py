"""How a step changes the weights: Adam with unit decoder rows, through autograd anywhere, in two fused passes on a CPU.

Shapes: B tokens, F features, A of them with further gradients, D width in, E width out.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from saelab import losses
from saelab.code import Code
from saelab.sae import SAE, unit_gradient
from training.config import Config

Moments = dict[str, tuple[Tensor, Tensor]]


class Extra(NamedTuple):
    """A further loss over some features [A], ascending, and its gradients dW_enc [A, D], db_enc [A], dW_dec [A, E]."""

    loss: float
    features: Tensor
    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor


class Forward(NamedTuple):
    """code: chosen pairs. fvu: the reconstruction loss. error_BD: target - x_hat."""

    code: Code
    fvu: float
    error_BD: Tensor


class Updates(Protocol):
    """`forward` measures a batch, `update` steps on what it measured; `moments` are Adam's, by parameter, to be saved."""

    def forward(self, x_BD: Tensor, target_BD: Tensor, variance: float, grad_BD: Tensor | None) -> Forward: ...

    def update(self, rate: float, number: int, extra: Extra | None) -> None: ...

    def moments(self) -> Moments: ...


class Autograd:
    """torch's autograd and Adam, with materialised gradients: any backend, any device."""

    def __init__(self, config: Config, sae: SAE) -> None:
        self.sae = sae
        self.adam = torch.optim.Adam(sae.parameters(), betas=(config.beta1, config.beta2), fused=True)
        for parameter in sae.parameters():
            zeros = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
            self.adam.state[parameter] = {"step": torch.tensor(0.0), **zeros}

    def forward(self, x_BD: Tensor, target_BD: Tensor, variance: float, grad_BD: Tensor | None) -> Forward:
        """Code, loss and error; the loss is kept for `update`."""
        code = self.sae.encode(x_BD, grad_BD)
        x_hat_BD = self.sae.decode(code)
        self.loss = losses.reconstruction(x_hat_BD, target_BD, variance)
        return Forward(code, self.loss.item(), target_BD - x_hat_BD.detach())

    def update(self, rate: float, number: int, extra: Extra | None) -> None:
        """Backward, drop the decoder gradient's part along the rows, one Adam step, unit norm."""
        self.loss.backward()
        sae = self.sae
        with torch.no_grad():
            if extra is not None:
                for name in ("W_enc", "b_enc", "W_dec"):
                    gradient = getattr(sae, name).grad
                    gradient.index_add_(0, extra.features, getattr(extra, name))
            gradient_FE = sae.W_dec.grad
            assert gradient_FE is not None
            gradient_FE -= (gradient_FE * sae.W_dec).sum(1, keepdim=True) * sae.W_dec
            self.adam.param_groups[0]["lr"] = rate
            for state in self.adam.state.values():
                state["step"].fill_(number - 1)
            self.adam.step()
            self.adam.zero_grad()
            sae.normalise_decoder()

    def moments(self) -> Moments:
        """Adam's moments by parameter name."""
        states = {name: self.adam.state[parameter] for name, parameter in self.sae.named_parameters()}
        return {name: (state["exp_avg"], state["exp_avg_sq"]) for name, state in states.items()}


class Fused:
    """The CPU kernels' two passes: no gradient is materialised."""

    def __init__(self, config: Config, sae: SAE) -> None:
        from saelab.kernels.cpu_step import Step, Weights

        self.config, self.sae = config, sae
        weights = [Weights(*(f(p.data) for p in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec))) for f in (_same, _zeros, _zeros)]
        self.first, self.second = weights[1], weights[2]
        self.fused = Step(*weights)

    def forward(self, x_BD: Tensor, target_BD: Tensor, variance: float, grad_BD: Tensor | None) -> Forward:
        """Code, loss and error; the gradients are kept for `update`."""
        scale = 2 / (len(x_BD) * variance)
        grad = None if grad_BD is None else unit_gradient(grad_BD)
        centred = not self.sae.transcoder
        self.done = self.fused.forward(x_BD, target_BD, self.sae.sparsify, scale, centred=centred, grad=grad)
        return Forward(self.done.code, self.done.error * scale / 2, self.done.G / -scale)

    def update(self, rate: float, number: int, extra: Extra | None) -> None:
        """One Adam step of all weights."""
        from saelab.kernels import cpu_step

        more = None if extra is None else cpu_step.Extra(extra.features, extra.W_enc, extra.b_enc, extra.W_dec)
        self.fused.update(self.done, cpu_step.Adam(rate, number, self.config.beta1, self.config.beta2), more)

    def moments(self) -> Moments:
        """Adam's moments by parameter name."""
        return {name: (getattr(self.first, name), getattr(self.second, name)) for name in self.first._fields}


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _zeros(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor)


def for_run(config: Config, sae: SAE) -> Updates:
    """Fused where the CPU backend serves a plain SAE or transcoder, else autograd."""
    fused = config.backend in (None, "cpu") and sae.W_enc.device.type == "cpu" and sae.W_skip is None
    return Fused(config, sae) if fused else Autograd(config, sae)
