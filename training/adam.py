"""Adam over an SAE's parameters: torch's, or one that moves fewer bytes, with moments in bfloat16
and rows that wait while they have no gradient.

Shapes: F features, D width, R rows of a piece.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from saelab.coder import Coder
from saelab.kernels import stepping

from . import encoder
from .config import Config

# Of the learning rate: a step moves a pre-activation through a whole row of W_enc, a level by one
# number.
LEVEL_RATE = 10.0
EPSILON = 1e-8
PIECE = 1 << 20  # numbers updated at a time, so that float32 copies of moments stay small
Moments = dict[str, tuple[Tensor, Tensor]]


class Moved(NamedTuple):
    """Features [R], ascending, and the number of steps since each last moved, [R]."""

    rows: Tensor
    gaps: Tensor


class Adam(Protocol):
    """`step` moves the parameters by their gradients; all that it remembers is in `moments`, by
    parameter, and in `more`."""

    def step(self, rate: float, number: int) -> list[Tensor] | None: ...

    def moments(self) -> Moments: ...

    def more(self) -> dict[str, Tensor]: ...


def numbers(config: Config, rate: float, number: int, **how: Any) -> stepping.Adam:
    """What a fused step takes of a configuration."""
    frozen = config.freeze == "decoder"
    return stepping.Adam(rate, number, config.beta1, config.beta2, frozen=frozen, **how)


def for_run(config: Config, sae: Coder) -> Adam:
    """torch's Adam, unless the configuration asks for bfloat16 moments or for waiting rows."""
    thrifty = config.moments != "float32" or waits(config)
    return Thrifty(config, sae) if thrifty else Torch(config, sae)


def _shares(config: Config, sae: Coder) -> dict[str, float]:
    """Of the learning rate, by parameter name, where it is not the whole."""
    return {"levels": LEVEL_RATE, "W_enc": encoder.length(config, sae.d_model)}


class Torch:
    """torch's fused Adam; moments have the parameters' dtype."""

    def __init__(self, config: Config, sae: Coder) -> None:
        self.sae, self.shares = sae, _shares(config, sae)
        groups = [{"params": [p]} for p in sae.parameters()]
        self.adam = torch.optim.Adam(groups, betas=(config.beta1, config.beta2), fused=True)
        for parameter in sae.parameters():
            zeros = {
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            step = torch.tensor(0.0, device=parameter.device)  # where fused Adam looks for it
            self.adam.state[parameter] = {"step": step, **zeros}

    def step(self, rate: float, number: int) -> None:
        """Move every parameter; number counts from 1."""
        named = self.sae.named_parameters()
        for (name, _), group in zip(named, self.adam.param_groups, strict=True):
            group["lr"] = rate * self.shares.get(name, 1)
        for state in self.adam.state.values():
            state["step"].fill_(number - 1)
        self.adam.step()

    def moments(self) -> Moments:
        """By parameter name."""
        states = {name: self.adam.state[p] for name, p in self.sae.named_parameters()}
        return {name: (state["exp_avg"], state["exp_avg_sq"]) for name, state in states.items()}

    def more(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


class Thrifty:
    """Adam for float32 parameters whose moments may be bfloat16, rounded stochastically, and whose
    rows may wait.

    A feature waits while W_enc's, b_enc's and W_dec's gradients are 0 in its row, and that of its
    level if it learns one: its parameters and moments are not touched. At its next gradient the
    moments have decayed by all the steps since its last one, as dense Adam's have; the bias
    correction is that of the run's step, as dense Adam's is. What a waiting row does not get is the
    way that dense Adam goes on moving it by its decaying first moment.

    Stochastic rounding takes the higher neighbour with the probability that makes the mean exact.
    To nearest, a second moment would never decay: it loses 2^-10 of itself a step, and what is
    under 2^-9 is rounded back. The random numbers depend on the seed, the step and the parameter
    alone.
    """

    def __init__(self, config: Config, sae: Coder) -> None:
        self.sae: Any = sae
        self.betas, self.seed = (config.beta1, config.beta2), config.seed
        self.shares = _shares(config, sae)
        dtype = getattr(torch, config.moments)
        self.pairs = {
            name: (torch.zeros_like(p, dtype=dtype), torch.zeros_like(p, dtype=dtype))
            for name, p in sae.named_parameters()
        }
        self.last_F = waiting(config, sae)

    @torch.no_grad()
    def step(self, rate: float, number: int) -> "list[Tensor] | None":
        """Move the parameters; number counts from 1. Returns each layer's features that moved,
        ascending; None for all."""
        moved = None if self.last_F is None else self._moved(number)
        for place, (name, parameter) in enumerate(self.sae.named_parameters()):
            own, noise = rate * self.shares.get(name, 1), self._noise(number, place)
            for rows, gaps in _pieces(parameter, None if moved is None else moved.get(parameter)):
                self._move(name, parameter, rows, gaps, (own, number), noise)
        return None if moved is None else [moved[layer.W_dec].rows for layer in self.sae.layers]

    def _noise(self, number: int, place: int) -> torch.Generator | None:
        """What rounds a parameter's moments in a step, where they are rounded."""
        if all(moment.dtype == torch.float32 for pair in self.pairs.values() for moment in pair):
            return None
        # Each its own: ranks that hold different features move what all hold alike.
        seed = (((self.seed << 32) + number) * 8 + place) % 2**63
        return torch.Generator(self.sae.b_dec.device).manual_seed(seed)

    def _moved(self, number: int) -> "dict[Tensor, Moved]":
        """By parameter, its rows that have a gradient."""
        assert self.last_F is not None
        found, first = {}, 0
        for layer in self.sae.layers:
            own = [layer.W_enc, layer.b_enc, layer.W_dec]
            own += [layer.levels] if isinstance(layer.levels, torch.nn.Parameter) else []
            last_F = self.last_F[first : first + len(layer.b_enc)]
            first += len(layer.b_enc)
            rows_R = _with_gradient(own)
            found |= dict.fromkeys(own, Moved(rows_R, number - last_F[rows_R]))
            last_F[rows_R] = number
        return found

    def _move(
        self,
        name: str,
        parameter: Tensor,
        rows: Tensor | slice,
        gaps: Tensor,
        step: tuple[float, int],
        noise: torch.Generator | None,
    ) -> None:
        """One step of some rows. gaps [R] or [1]: steps since each row's last one."""
        (rate, number), (beta1, beta2), pair = step, self.betas, self.pairs[name]
        assert parameter.grad is not None
        gradient, first, second = (t[rows].float() for t in (parameter.grad, *pair))
        steps = gaps.float().view(-1, *[1] * (parameter.ndim - 1))
        first = first * beta1**steps + (1 - beta1) * gradient
        second = second * beta2**steps + (1 - beta2) * gradient.square()
        size, inverse = rate / (1 - beta1**number), (1 - beta2**number) ** -0.5
        parameter[rows] -= size * first / (second.sqrt() * inverse + EPSILON)
        for moment, exact in zip(pair, (first, second), strict=True):
            moment[rows] = exact if noise is None else rounded(exact, noise)

    def moments(self) -> Moments:
        """By parameter name."""
        return self.pairs

    def more(self) -> dict[str, Tensor]:
        """The step at which each feature last moved."""
        return {} if self.last_F is None else {"last": self.last_F}


def waits(config: Config) -> bool:
    """Whether features without a gradient stay as they are; parameters in bfloat16 have torch's
    Adam."""
    return config.lazy and config.dtype == "float32"


def waiting(config: Config, sae: Coder) -> Tensor | None:
    """[F] int64, of all layers: the step in which each feature last moved, before the first; None
    where none waits."""
    if not waits(config):
        return None
    n_features = sum(len(layer.b_enc) for layer in sae.layers)
    return torch.zeros(n_features, dtype=torch.int64, device=sae.b_dec.device)


def _with_gradient(parameters: Sequence[Tensor]) -> Tensor:
    """[R]: the features whose gradient is not 0 everywhere."""
    some_F = torch.zeros(len(parameters[0]), dtype=torch.bool, device=parameters[0].device)
    for parameter in parameters:
        assert parameter.grad is not None
        some_F |= (parameter.grad.view(len(some_F), -1) != 0).any(1)
    return some_F.nonzero()[:, 0]


def _pieces(
    parameter: Tensor, moved: Moved | None = None
) -> Iterator[tuple[Tensor | slice, Tensor]]:
    """(rows, steps since their last one) of all rows or those given, about PIECE numbers each."""
    n = max(1, PIECE // max(1, parameter[0].numel()))
    if moved is None:
        for start in range(0, len(parameter), n):
            yield slice(start, start + n), parameter.new_ones(1)
        return
    yield from zip(moved.rows.split(n), moved.gaps.split(n), strict=True)


def rounded(exact: Tensor, noise: torch.Generator) -> Tensor:
    """bfloat16 of finite float32 numbers, up or down at random so that the mean is exact.

    Random bits below bfloat16's last place are added to the size before they are cut off.

    >>> moment = rounded(exact, torch.Generator().manual_seed(0))
    """
    bits = exact.view(torch.int32)
    below = torch.randint(
        0, 1 << 16, bits.shape, dtype=torch.int32, device=bits.device, generator=noise
    )
    return ((bits + below) & -(1 << 16)).view(torch.float32).bfloat16()
