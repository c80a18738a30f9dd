"""A model's matrices as factors, a dense dictionary times codes, in a file that takes their bytes.

`factors.safetensors` stands in a folder in Hugging Face layout where `model.safetensors` would: it
holds the factors of some matrices and every other weight as it is. `models.load` reads such a
folder like any other; other programs need the matrices multiplied out.

Shapes: I inputs of a matrix, O its outputs (of several matrices side by side), K atoms.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from saelab import digests

NAME = "factors.safetensors"
SCHEMA = "saelab/factors/1"
BITS = 16  # of a number that is stored
AGAIN = "run `saelab compress` again"


class Factors(NamedTuple):
    """W = dictionary x codes, in float16 as they are stored."""

    dictionary_IK: Tensor
    codes_KO: Tensor
    sparse: bool
    """whether codes are stored as a mask and the numbers that are not 0, or all of them"""

    @property
    def n_nonzero(self) -> int:
        """Codes that are not 0."""
        return int(self.codes_KO.count_nonzero())

    @property
    def bits(self) -> int:
        """16 I K + 16 nonzeros + K O, where a mask says which codes are not 0; else
        16 K (I + O)."""
        n_codes = self.n_nonzero if self.sparse else self.codes_KO.numel()
        mask = self.codes_KO.numel() if self.sparse else 0
        return BITS * (self.dictionary_IK.numel() + n_codes) + mask

    @property
    def product_IO(self) -> Tensor:
        """The matrix, float32."""
        return self.dictionary_IK.float() @ self.codes_KO.float()


class Part(NamedTuple):
    """One weight of a model that is among the columns of a product."""

    name: str
    """the parameter's"""
    n_outputs: int
    """columns that are its own"""
    turned: bool
    """whether the model keeps it as [outputs, inputs]"""


class Group(NamedTuple):
    """Weights that share a dictionary."""

    parts: tuple[Part, ...]
    """in the order of their columns"""
    factors: Factors

    def weights(self) -> dict[str, Tensor]:
        """Each multiplied out, float32, as the model keeps it."""
        widths = [part.n_outputs for part in self.parts]
        pieces = self.factors.product_IO.split(widths, 1)
        return {
            part.name: (piece.T if part.turned else piece).contiguous()
            for part, piece in zip(self.parts, pieces, strict=True)
        }


def write(path: Path, groups: Sequence[Group], others: Mapping[str, Tensor]) -> None:
    """Write the factors of groups beside a model's other weights, with a digest of their own.

    write(folder / NAME, groups, {"transformer.wte.weight": embedding})
    """
    from safetensors.torch import save_file

    tensors = dict(others)
    for number, group in enumerate(groups):
        packed = _packed(group.factors)
        tensors |= {f"factors.{number}.{name}": tensor for name, tensor in packed.items()}
    told = [[part._asdict() for part in group.parts] for group in groups]
    fields = {"schema": SCHEMA, "groups": json.dumps(told), digests.FIELD: digests.BLANK}
    save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, path, fields)
    digests.seal(path)


def read(path: Path) -> tuple[list[Group], dict[str, Tensor]]:
    """The groups and the other weights of a file. Raises FailedRun for one that is damaged or of
    another version."""
    fields, tensors = digests.sealed_tensors(path, SCHEMA, AGAIN)
    groups = []
    for number, parts in enumerate(json.loads(fields["groups"])):
        held = tuple(Part(**part) for part in parts)
        names = [name for name in tensors if name.startswith(f"factors.{number}.")]
        packed = {name.rpartition(".")[2]: tensors.pop(name) for name in names}
        groups.append(Group(held, _unpacked(packed, sum(part.n_outputs for part in held))))
    return groups, tensors


def whole_weights(folder: Path) -> dict[str, Tensor] | None:
    """Every weight of a folder that holds factors, multiplied out; None for one that holds none."""
    if not (folder / NAME).is_file():
        return None
    groups, others = read(folder / NAME)
    return others | {name: W for group in groups for name, W in group.weights().items()}


def _packed(factors: Factors) -> dict[str, Tensor]:
    """What is stored. Codes lie column after column, and so do the bits of their mask."""
    dictionary, codes_OK = factors.dictionary_IK.half(), factors.codes_KO.T.half().contiguous()
    if not factors.sparse:
        return {"dictionary": dictionary, "codes": codes_OK}
    mask_OK = codes_OK != 0
    return {"dictionary": dictionary, "values": codes_OK[mask_OK], "mask": _bytes_of(mask_OK)}


def _unpacked(packed: Mapping[str, Tensor], n_outputs: int) -> Factors:
    dictionary = packed["dictionary"]
    if "codes" in packed:
        return Factors(dictionary, packed["codes"].T.contiguous(), sparse=False)
    n_atoms = dictionary.shape[1]
    mask_OK = _bits_of(packed["mask"], n_outputs * n_atoms).view(n_outputs, n_atoms)
    codes_OK = dictionary.new_zeros(n_outputs, n_atoms)
    codes_OK[mask_OK] = packed["values"]
    return Factors(dictionary, codes_OK.T.contiguous(), sparse=True)


def _bytes_of(bits: Tensor) -> Tensor:
    """Eight of them in each byte, the last one filled up with 0."""
    import numpy as np

    return torch.from_numpy(np.packbits(bits.cpu().numpy().reshape(-1)))


def _bits_of(packed: Tensor, n: int) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.unpackbits(packed.numpy(), count=n).astype(bool))
