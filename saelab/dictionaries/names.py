"""The names of `methods.METHODS`, in an import that loads nothing heavy."""

from typing import Literal

Linear = Literal["pca", "ica", "random", "neurons", "orthogonal"]
Coded = Literal["k-means", "semi-nmf", "k-svd", "mod", "bsc", "tsc", "gsc"]
Name = Linear | Coded
