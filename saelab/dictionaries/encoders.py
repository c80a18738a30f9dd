"""Encoders that are no linear score: how a token is coded by the rows of a dictionary, as small
values that an SAE holds and its file says.

Shapes: B tokens, F features, D width.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from saelab.code import Code
from saelab.dictionaries import nonnegative, truncated
from saelab.dictionaries.pursuit import METHODS, pursue
from saelab.dictionaries.truncated import Prior
from saelab.errors import UsageError

ROWS = 2048  # tokens coded at a time


class Encoder(Protocol):
    """What SAE.encode calls in place of its own scores."""

    def __call__(self, x: Tensor, W_dec: Tensor, k: int) -> Code:
        """The code of x [B, D] (b_dec subtracted) over the rows of W_dec [F, D], of at most k pairs
        per token."""
        ...


@dataclass(frozen=True)
class Nearest:
    """The one row that is nearest in the Euclidean norm, at value 1 (k-means)."""

    def __call__(self, x: Tensor, W_dec: Tensor, k: int) -> Code:
        half_F = W_dec.square().sum(1) / 2
        best = [(x_BD @ W_dec.T - half_F).argmax(1) for x_BD in x.split(ROWS)]
        feature_B = torch.cat(best) if best else half_F.new_zeros(0, dtype=torch.int64)
        starts = torch.arange(len(x) + 1, device=x.device)
        return Code(starts, feature_B, x.new_ones(len(x)), len(W_dec))


@dataclass(frozen=True)
class Pursued:
    """Greedy pursuit of k steps over the rows, see `pursuit` (K-SVD, MOD)."""

    method: str = "orthogonal"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"no pursuit {self.method!r}; there are {', '.join(METHODS)}")

    def __call__(self, x: Tensor, W_dec: Tensor, k: int) -> Code:
        return pursue(x, W_dec, k, self.method).code


@dataclass(frozen=True)
class NonNegative:
    """Non-negative least squares by multiplicative steps, of which the k largest values are kept
    and fitted anew (semi-NMF; Ding, Li and Jordan 2010)."""

    steps: int = 100

    def __call__(self, x: Tensor, W_dec: Tensor, k: int) -> Code:
        parts = [nonnegative.sparse(x_BD, W_dec, k, self.steps) for x_BD in x.split(ROWS)]
        return Code.concatenate(parts or [nonnegative.sparse(x, W_dec, k, self.steps)])


@dataclass(frozen=True)
class Posterior:
    """The most probable state under a sparse-coding prior, with the mean of its values there; see
    `truncated` (BSC, TSC, GSC)."""

    prior: Prior

    def __call__(self, x: Tensor, W_dec: Tensor, k: int) -> Code:
        parts = [truncated.mode(x_BD, W_dec, self.prior) for x_BD in x.split(ROWS)]
        return Code.concatenate(parts or [truncated.mode(x, W_dec, self.prior)])


def check_scores(encoder: Encoder | None) -> None:
    """Raise UsageError for a dictionary whose values are no scores of the input: what traces a
    value back to it would tell something else."""
    if encoder is not None:
        raise UsageError(
            f"this dictionary codes tokens by its encoder ({type(encoder).__name__}), and its "
            "values are no sums over the input: they are not traced back; name an SAE"
        )


KINDS: dict[str, Any] = {
    "nearest": Nearest,
    "pursued": Pursued,
    "non-negative": NonNegative,
    "posterior": Posterior,
}


def to_dict(encoder: Encoder) -> dict[str, Any]:
    """Plain values for JSON."""
    name = next(name for name, kind in KINDS.items() if isinstance(encoder, kind))
    return {"kind": name, **asdict(encoder)}  # type: ignore[call-overload]


def from_dict(fields: Mapping[str, Any] | None) -> Encoder | None:
    """The inverse of `to_dict`; None of None. Raises ValueError for an unknown kind."""
    if fields is None:
        return None
    fields = dict(fields)
    kind = fields.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"no encoder {kind!r}; there are {', '.join(KINDS)}")
    if kind == "posterior":
        return Posterior(Prior(**{name: _held(value) for name, value in fields["prior"].items()}))
    return KINDS[kind](**fields)


def _held(value: Any) -> Any:
    """Lists as the tuples that a frozen value holds."""
    return tuple(value) if isinstance(value, list) else value
