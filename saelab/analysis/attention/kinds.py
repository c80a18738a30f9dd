"""What kind of head a head is, measured: where it looks on generated sequences, beside what chance
gives.

Sequences of random tokens, once repeated: the kinds are places that such a sequence alone defines.
Source: Olsson et al. 2022, "In-context Learning and Induction Heads" (induction, previous token);
Kissane et al. 2024, section 4.3, and Wang et al. 2022 (duplicate token). Shapes: N sequences, T
positions, H heads, P tokens of the part that is repeated, K lengths of prefixes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.models.tokens import special
from saelab.statistics import Estimate, over_documents, weights
from saelab.statistics.draws import stream

SEQUENCES, PART = 64, 24  # of a model with room for it
PREFIXES = (1, 2, 4, 8)  # tokens that match before a head is to look behind them
CLEAR = 0.25  # of the attention above chance from which a head is called by a kind


class Kind(NamedTuple):
    """A place to look at."""

    meaning: str
    offset: Callable[[int], int]
    """how far back it lies, of the part's length P"""
    repeated: bool
    """whether it is defined by the repetition: measured in the second part, chance being what the
    head gives the same place of a sequence without one"""


KINDS = {
    "current token": Kind("attends to the token itself", lambda part: 0, False),
    "previous token": Kind("attends to the token before", lambda part: 1, False),
    "duplicate token": Kind("attends to the same token earlier", lambda part: part, True),
    "induction": Kind(
        "attends to the token that followed the same one earlier", lambda part: part - 1, True
    ),
}
FIRST = "first position"  # where heads look that have nothing to do: no place at an offset


class Measured(NamedTuple):
    """A head's share of attention by kind."""

    head: int
    shares: dict[str, Estimate]
    """mean over positions, interval over sequences, null what chance gives"""
    called: list[str]
    """the kinds whose share is CLEAR above chance, with its whole interval; largest first"""


def sequences(model: Any, n: int, part: int, seed: int) -> tuple[Tensor, Tensor]:
    """[N, 1 + 2 P] twice: random tokens repeated, and as many that are not, behind the same first
    token; the first part is the same."""
    draw = stream("kinds of heads", seed)
    marked = special(model.tokenizer)
    words = [token for token in range(len(model.tokenizer)) if token not in marked]
    pool, first = torch.tensor(words), model.tokenizer.bos_token_id
    first_N1 = torch.full((n, 1), words[0] if first is None else first)
    # Drawn without replacement: nothing repeats by chance.
    drawn_NT = torch.stack(
        [pool[torch.randperm(len(pool), generator=draw)[: 2 * part]] for _ in range(n)]
    )
    once_NP = drawn_NT[:, :part]
    return torch.cat([first_N1, once_NP, once_NP], 1), torch.cat([first_N1, drawn_NT], 1)


@torch.no_grad()
def patterns(model: Any, tokens_NT: Tensor, layer: int) -> Tensor:
    """[N, H, T, T]: the attention patterns of a layer."""
    name = f"blocks.{layer}.attn.hook_pattern"
    device = model.cfg.device
    run = frozen.run(model, frozen.Frozen(tokens_NT.to(device), {}), {}, [name])
    return run[name].float().cpu()


def looked(pattern_NHTT: Tensor, offset: int, start: int) -> Tensor:
    """[N, H]: the mean share of attention that goes `offset` back, at positions from `start` on."""
    return pattern_NHTT.diagonal(-offset, 2, 3)[..., start - offset :].mean(-1)


def chance(length: int, start: int) -> float:
    """The share that one place gets on average where attention is spread evenly over all that a
    position sees."""
    return float((1 / torch.arange(start + 1, length + 1)).mean())


def measure(
    repeated_NHTT: Tensor, unrepeated_NHTT: Tensor, part: int, seed: int = 0
) -> list[Measured]:
    """One row per head.

    >>> pairs = (patterns(model, tokens_NT, 1) for tokens_NT in sequences(model, 64, 24, 0))
    >>> measure(*pairs, part=24)[5].called
    ['induction']
    """
    n, n_heads, length, _ = repeated_NHTT.shape
    weights_RN = weights(n, seed)
    columns: dict[str, tuple[Tensor, list[float]]] = {}
    for name, kind in KINDS.items():
        offset, start = kind.offset(part), 1 + part if kind.repeated else 1
        seen_NH = looked(repeated_NHTT, offset, start)
        nulls_H = [chance(length, start)] * n_heads
        if kind.repeated:
            nulls_H = looked(unrepeated_NHTT, offset, start).mean(0).tolist()
        columns[name] = (seen_NH, nulls_H)
    first_NH = repeated_NHTT[:, :, 1:, 0].mean(-1)
    columns[FIRST] = (first_NH, [chance(length, 1)] * n_heads)
    rows = []
    for head in range(n_heads):
        shares = {
            name: mean(seen_NH[:, head], weights_RN, nulls_H[head])
            for name, (seen_NH, nulls_H) in columns.items()
        }
        rows.append(Measured(head, shares, _called(shares)))
    return rows


def by_prefix(
    model: Any, layer: int, lengths: Sequence[int], n: int, seed: int = 0, part: int = PART
) -> Tensor:
    """[K, N, H]: the share of attention that heads give to the token that followed an earlier
    prefix, where the last k tokens match it: one row for each k of `lengths`.

    The sequences are 1 + 2 `part` random tokens, of which the prefix alone comes twice. Source:
    Kissane et al. 2024, section 4.3. Raises ValueError for prefixes of `part` tokens or more.

    >>> by_prefix(model, 3, (1, 8), 64).mean(1)[:, 4]
    tensor([0.3826, 0.8275])
    """
    if max(lengths) >= part:
        raise ValueError(f"prefixes of less than {part} tokens, not {max(lengths)}")
    _, drawn_NT = sequences(model, n, part, seed)
    rows = []
    for k in lengths:
        matching_NT = drawn_NT.clone()
        # 1 + part - k tokens, the prefix, then others; the prefix again at the sequence's end.
        matching_NT[:, -k:] = drawn_NT[:, 1 + part - k : 1 + part]
        pattern_NHTT = patterns(model, matching_NT, layer)
        rows.append(pattern_NHTT[:, :, -1, 1 + part])
    return torch.stack(rows)


def mean(share_N: Tensor, weights_RN: np.ndarray, null: float | None = None) -> Estimate:
    """The mean over sequences with its interval."""
    sums_N2 = np.stack([share_N.double().numpy(), np.ones(len(share_N))], 1)
    return over_documents(sums_N2, lambda s: s[..., 0] / s[..., 1], weights_RN, null)


def _called(shares: dict[str, Estimate]) -> list[str]:
    clear = {
        name: share.value - share.null
        for name, share in shares.items()
        if share.low is not None
        and share.null is not None
        and share.value is not None
        and share.low - share.null >= CLEAR
    }
    return sorted(clear, key=lambda name: -clear[name])
