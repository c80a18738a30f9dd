"""One's own tensors as a Source.

Shapes: C contexts, T positions, N = C x T rows, D width.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from saelab import documents
from saelab.activations.plan import Plan, hook
from saelab.activations.source import SPLITS, Piece
from saelab.errors import UsageError
from saelab.origin import ARRAYS

ROWS = 65_536  # read at a time
CONTEXT = 256  # rows of a context that nobody said the length of
IDS = ("tokens", "owners", "counted")


def from_arrays(
    arrays: Mapping[str, Any] | Any,
    ids: Mapping[str, Any] | None = None,
    *,
    context: int | None = None,
    dtype: str = "float16",
    text: str = "arrays",
) -> "FromArrays":
    """Arrays [N, D], or contexts [C, T, D], as a Source: one tensor or numpy array, or several by
    hook name.

    ids: what else is known, each optional and of the arrays' leading shape: `tokens` (default: the
    number of the row), `owners` (the document of each row, or of each context [C]; default: each
    context is its own) and `counted` (default: every row counts). Rows [N, D] make up contexts of
    `context` rows, split by split. Raises UsageError for arrays of other lengths, another number of
    dimensions, numbers that are not finite, another `context` than theirs, and contexts with owners
    of both splits.

        cache = Cache.write("cache", from_arrays(x_ND))
        cache = Cache.write("cache", from_arrays({"mlp": x_CTD}, {"tokens": ids_CT}))
    """
    named = dict(arrays) if isinstance(arrays, Mapping) else {"acts": arrays}
    tensors = {name: torch.as_tensor(array) for name, array in named.items()}
    given = {name: torch.as_tensor(array) for name, array in (ids or {}).items()}
    leading = _leading(tensors)
    if unknown := sorted(set(given) - set(IDS)):
        raise UsageError(f"ids hold {', '.join(unknown)}; there are {', '.join(IDS)}")
    for name, column in given.items():
        fitting = [leading, leading[:1]] if name == "owners" else [leading]
        if tuple(column.shape) not in fitting:
            raise UsageError(f"{name} has shape {list(column.shape)}, the arrays {list(leading)}")
    if len(leading) == 2 and context not in (None, leading[1]):
        raise UsageError(f"context={context}, but the arrays have {leading[1]} positions each")
    length = leading[1] if len(leading) == 2 else min(context or CONTEXT, leading[0])
    plan = Plan(
        model={"name": ARRAYS, "revision": _digest(tensors, given), "tokenizer_hash": ""},
        text=text,
        hooks={name: hook(tensor.shape[-1:]) for name, tensor in tensors.items()},
        n_tokens=int(np.prod(leading)),
        context=length,
        dtype=dtype,
        pack="given",
        masked=True,
    )
    return FromArrays(plan, tensors, given)


def _leading(tensors: dict[str, Tensor]) -> tuple[int, ...]:
    """The shape that all arrays share but for their width."""
    (first, one), *others = tensors.items()
    for name, tensor in tensors.items():
        if tensor.ndim not in (2, 3) or not tensor.numel() or not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UsageError(
                f"{name} is {kind} of shape {list(tensor.shape)}: floats [N, D] or [C, T, D] are "
                "right"
            )
    for name, other in others:
        if other.shape[:-1] != one.shape[:-1]:
            raise UsageError(
                f"{first} has shape {list(one.shape)} and {name} {list(other.shape)}: "
                "all but the last number must be equal"
            )
    return tuple(one.shape[:-1])


def _digest(tensors: dict[str, Tensor], given: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes. Raises UsageError for what is not finite."""
    sha = hashlib.sha256()
    for name, tensor in (tensors | given).items():
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        flat = tensor.reshape(-1, tensor.shape[-1])
        for first in range(0, len(flat), ROWS):
            part = flat[first : first + ROWS].contiguous()
            bad_N = ~torch.isfinite(part).all(1)
            if bool(bad_N.any()):
                row = first + int(bad_N.nonzero()[0])
                raise UsageError(f"{name} holds numbers that are not finite, first in row {row}")
            sha.update(part.view(torch.uint8).numpy().data)
    return sha.hexdigest()


class FromArrays:
    """See `from_arrays`."""

    def __init__(self, plan: Plan, tensors: dict[str, Tensor], given: dict[str, Tensor]) -> None:
        self.plan = plan
        self.rows_ND = {name: tensor.flatten(0, -2) for name, tensor in tensors.items()}
        leading = next(iter(tensors.values())).shape[:-1]
        n_rows, length = leading.numel(), plan.context
        number_N = torch.arange(n_rows)
        self.tokens_N = given.get("tokens", number_N % 2**31).flatten().long()
        self.counted_N = given.get("counted", torch.ones(n_rows)).flatten().bool()
        owners = given.get("owners", number_N // length)
        if owners.shape != leading:  # one for each context
            owners = owners.repeat_interleave(n_rows // len(owners))
        values, owner_N = owners.flatten().unique(return_inverse=True)
        self.owner_N = owner_N
        what = "owner" if "owners" in given else "context"
        self.names = [f"{what} {value}" for value in values.tolist()]
        self.notes: dict[str, Any] = {}
        self.split_G = self._split()
        self.given_C = leading[0] if len(leading) == 2 else None
        self.rows_CT: list[Tensor] = []  # the rows of every context, -1 where it is padding

    def _split(self) -> Tensor:
        """[G] bool: which documents are held out. Where that leaves a split empty, the one of the
        smallest digest is."""
        if len(self.names) < 2:
            raise UsageError("all rows are of one document: two are needed, one for each split")
        split = documents.split((name, name) for name in self.names)
        self.plan = replace(self.plan, split_rule=split.rule)
        return torch.tensor([split.holds_out(name) for name in self.names])

    def pieces(self) -> Iterator[Piece]:
        """Its contexts one by one, those of the training split first where rows make them up."""
        self.rows_CT = []
        held_N = self.split_G[self.owner_N]
        if self.given_C is not None:
            spans = torch.arange(len(held_N)).split(self.plan.context)
        else:
            sides = (torch.nonzero(held_N == side).flatten() for side in (False, True))
            spans = [span for side_N in sides for span in side_N.split(self.plan.context)]
        for number, rows in enumerate(spans):
            if held_N[rows].any() != held_N[rows].all():
                raise UsageError(
                    f"context {number} has owners of both splits: give its rows as [N, D]"
                )
            yield self._piece(number, rows, SPLITS[int(held_N[rows[0]])])

    def _piece(self, number: int, rows: Tensor, split: str) -> Piece:
        n_missing = self.plan.context - len(rows)
        rows_1T = torch.nn.functional.pad(rows, (0, n_missing), value=-1)[None]
        self.rows_CT.append(rows_1T)
        there_1T = rows_1T >= 0
        owners_1T = torch.where(there_1T, self.owner_N[rows_1T], self.owner_N[rows[-1]])
        tokens_1T = self.tokens_N[rows_1T] * there_1T
        counted_1T = self.counted_N[rows_1T] & there_1T
        return Piece(split, tokens_1T, owners_1T, torch.tensor([number]), counted_1T)

    def acts(self, piece: Piece) -> Iterator[dict[str, Tensor]]:
        """The rows of its contexts; padding repeats one of them."""
        rows_CT = torch.cat([self.rows_CT[number] for number in piece.numbers.tolist()])
        yield {name: rows_ND[rows_CT.clamp_min(0)] for name, rows_ND in self.rows_ND.items()}


def read(path: Path | str, hooks: tuple[str, ...] = (), name: str = "acts") -> dict[str, Tensor]:
    """The arrays of a .safetensors file by their names, or the one of a .npy file, mapped into
    memory. hooks: which ones (none: all); of a .npy file, what it is to be called instead of
    `name`. Raises UsageError for a file that is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no such file: {path}")
    if path.suffix == ".npy":
        if len(hooks) > 1:
            raise UsageError(f"{path} is one array, {len(hooks)} hooks are named")
        return {(hooks or (name,))[0]: _npy(path)}
    if path.suffix != ".safetensors":
        raise UsageError(f"{path} is neither .safetensors nor .npy")
    try:
        with safe_open(path, "pt") as file:
            there = list(file.keys())
            if missing := [hook for hook in hooks if hook not in there]:
                raise UsageError(f"{path} holds no {missing[0]!r}; it holds {', '.join(there)}")
            return {key: file.get_tensor(key) for key in hooks or there}
    except SafetensorError as error:
        raise UsageError(f"{path} is no safetensors file: {error}") from None


def _npy(path: Path) -> Tensor:
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
        return torch.from_numpy(array)
    except (ValueError, TypeError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} is no array of numbers that can be read: {reason}") from None
