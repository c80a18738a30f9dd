"""Compressing a model's weight matrices into factors, and what that costs it."""

from saelab.analysis.compression.effect import Effect, effect
from saelab.analysis.compression.factorise import METHODS, Plan, factorise
from saelab.analysis.compression.matrices import Matrix, columns_of, grouped, matrices
from saelab.analysis.compression.model import (
    DENSE,
    FACTORS,
    compress,
    multiplied_out,
    write,
)
from saelab.analysis.compression.moments import Gram, grams, whitening

__all__ = [
    "DENSE",
    "FACTORS",
    "METHODS",
    "Effect",
    "Gram",
    "Matrix",
    "Plan",
    "columns_of",
    "compress",
    "effect",
    "factorise",
    "grams",
    "grouped",
    "matrices",
    "multiplied_out",
    "whitening",
    "write",
]
