"""Files as others write them, with random weights, and what they mean: written down as each
project's own code has it, in float64, a token at a time.

Shapes: F features, D width.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

F, D, K = 24, 6, 3
Array = NDArray[np.float64]


class File(NamedTuple):
    """A written file or folder, and its function of one token: (reconstruction [D], what each
    feature adds to it, as the size of that part [F])."""

    path: Path
    function: Callable[[Array], tuple[Array, Array]]


class Weights:
    """Random ones in float32, whose decoder rows have different norms."""

    def __init__(self, seed: int, unit: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.W_enc = rng.normal(size=(F, D)).astype(np.float32)
        self.W_dec = rng.normal(size=(F, D)).astype(np.float32)
        if unit:
            self.W_dec /= np.linalg.norm(self.W_dec, axis=1, keepdims=True)
        self.b_enc, self.threshold = (rng.normal(size=F).astype(np.float32) * s for s in (0.3, 0.5))
        self.threshold = np.abs(self.threshold)
        self.b_dec = rng.normal(size=D).astype(np.float32) * np.float32(0.5)
        self.W_skip = rng.normal(size=(D, D)).astype(np.float32) * np.float32(0.3)
        self.gate, self.r_mag = (rng.normal(size=F).astype(np.float32) * s for s in (0.3, 0.2))
        self.norms = np.linalg.norm(self.W_dec.astype(float), axis=1)

    def pre(self, x: Array, centred: bool = True) -> Array:
        given = x - self.b_dec if centred else x
        return self.W_enc.astype(float) @ given + self.b_enc

    def out(self, z: Array, bias: bool = True) -> tuple[Array, Array]:
        y = z @ self.W_dec.astype(float) + (self.b_dec if bias else 0)
        return y, np.abs(z) * self.norms


def relu(u: Array) -> Array:
    return np.maximum(u, 0)


def top(u: Array, by: Array) -> Array:
    """u at the K largest entries of `by`."""
    kept = np.argsort(-by, kind="stable")[:K]
    z = np.zeros_like(u)
    z[kept] = u[kept]
    return z


def above(u: Array, level: Array | float) -> Array:
    return relu(u) * (u > level)


def tensors(**arrays: Any) -> dict[str, torch.Tensor]:
    named = {name.replace("__", "."): value for name, value in arrays.items()}
    return {name: torch.as_tensor(np.ascontiguousarray(v)).clone() for name, v in named.items()}


def four(w: Weights) -> dict[str, torch.Tensor]:
    return tensors(W_enc=w.W_enc.T, b_enc=w.b_enc, W_dec=w.W_dec, b_dec=w.b_dec)


def linear(w: Weights) -> dict[str, torch.Tensor]:
    return tensors(encoder__weight=w.W_enc, encoder__bias=w.b_enc, decoder__weight=w.W_dec.T)
