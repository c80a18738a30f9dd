"""Which weight matrices of a model are compressed, and where each reads its input.

Shapes: I inputs, O outputs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.models.factors import Part
from saelab.models.families import FAMILIES

# Part of a block -> what its matrices read, as people call it; the first that fits is taken.
INPUTS = {
    "attn.o": "attention z",
    "mlp.out": "MLP post",
    "attn": "attention in",
    "mlp": "MLP in",
}
LINEAR = {"Linear": True, "Conv1D": False}  # whether a class keeps its weight as [O, I]


class Matrix(NamedTuple):
    """One weight matrix of a block."""

    name: str
    """the parameter's name in the model"""
    layer: int
    path: str
    """of its module in the block, such as `attn.c_attn`: the same in every layer"""
    hook: str
    """where its input is read"""
    reads: str
    """what that is: a value of INPUTS"""
    turned: bool
    """whether the model keeps it as [O, I]"""

    def weight(self, model: Any) -> Tensor:
        """[I, O] of a model."""
        weight = model.plain.get_parameter(self.name).detach()
        return weight.T if self.turned else weight


def matrices(model: Any) -> list[Matrix]:
    """The linear maps of every block's attention and MLP, layer by layer.

        [matrix.name for matrix in matrices(models.load("bundled"))]

    Raises UsageError for a model whose modules are not known by name.
    """
    if model.family is None:
        known = ", ".join(FAMILIES)
        raise UsageError(f"matrices are known of models of these classes: {known}; name one")
    blocks = model.plain.get_submodule(model.family.blocks)
    return [
        found
        for layer, block in enumerate(blocks)
        for path, module in block.named_modules()
        if (found := _matrix(model.family, layer, path, module))
    ]


def _matrix(family: Any, layer: int, path: str, module: Any) -> Matrix | None:
    """What a module of a block is; None for one that is no linear map of attention or MLP."""
    turned = LINEAR.get(type(module).__name__)
    within = [part for part in INPUTS if _lies_in(path, family.parts[part])]
    if turned is None or not within:
        return None
    name = f"{family.blocks}.{layer}.{path}.weight"
    hook = f"blocks.{layer}.{within[0]}.hook_in"
    return Matrix(name, layer, path, hook, INPUTS[within[0]], turned)


def _lies_in(path: str, module: str) -> bool:
    return path == module or path.startswith(f"{module}.")


def grouped(matrices: Sequence[Matrix], n_layers: int) -> list[tuple[Matrix, ...]]:
    """The matrices of n_layers consecutive layers that do the same, which share a dictionary."""
    paths = dict.fromkeys(matrix.path for matrix in matrices)
    same = ([matrix for matrix in matrices if matrix.path == path] for path in paths)
    return [
        tuple(each[first : first + n_layers])
        for each in same
        for first in range(0, len(each), n_layers)
    ]


def columns_of(model: Any, group: Sequence[Matrix]) -> tuple[Tensor, tuple[Part, ...]]:
    """The weights of a group side by side [I, O], float64, and which columns are whose."""
    weights = [matrix.weight(model).double() for matrix in group]
    parts = (
        Part(matrix.name, weight.shape[1], matrix.turned)
        for matrix, weight in zip(group, weights, strict=True)
    )
    return torch.cat(weights, 1), tuple(parts)
