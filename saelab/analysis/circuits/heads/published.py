"""Circuits that papers published, as data, for users who have those models: GPT-2 small and a
four-layer attention-only model.

Heads are (layer, head); nodes are named as in `programs`: `embed`, `aL.hH`, `mL`, with `.q`, `.k`,
`.v` for a head's inputs, and `logits`. The lists are those of Conmy et al. 2023 (ACDC), which
differ from the original papers in single heads.
"""

from itertools import product
from typing import NamedTuple

from saelab.errors import UsageError

Edge = tuple[str, str]
Head = tuple[int, int]


class Published(NamedTuple):
    """A published circuit."""

    models: tuple[str, ...]
    """what its model is called, without its owner, in small letters"""
    shape: tuple[int, int]
    """layers of that model, and heads of each"""
    source: str
    groups: dict[str, tuple[Head, ...]]
    """role -> heads"""
    mlps: tuple[int, ...]
    """their layers"""
    edges: tuple[Edge, ...]
    """see the module"""

    def heads(self) -> list[Head]:
        """Every head of the circuit, sorted."""
        return sorted({head for group in self.groups.values() for head in group})


def _node(head: Head, part: str = "") -> str:
    return f"a{head[0]}.h{head[1]}" + (f".{part}" if part else "")


_IOI = {
    "name mover": ((9, 9), (10, 0), (9, 6)),
    "backup name mover": ((10, 10), (10, 6), (10, 2), (10, 1), (11, 2), (9, 7), (9, 0), (11, 9)),
    "negative name mover": ((10, 7), (11, 10)),
    "s-inhibition": ((7, 3), (7, 9), (8, 6), (8, 10)),
    "induction": ((5, 5), (5, 8), (5, 9), (6, 9)),
    "duplicate token": ((0, 1), (0, 10), (3, 0)),
    "previous token": ((2, 2), (4, 11)),
}

# (from, to, which inputs); `input` stands for the embedding and every MLP. Wang et al. 2022, figure
# 2, as in ACDC.
IOI_GROUP_EDGES = (
    ("input", "previous token", "qkv"),
    ("input", "duplicate token", "qkv"),
    ("input", "s-inhibition", "q"),
    ("input", "negative name mover", "kv"),
    ("input", "name mover", "kv"),
    ("input", "backup name mover", "kv"),
    ("previous token", "induction", "kv"),
    ("induction", "s-inhibition", "kv"),
    ("duplicate token", "s-inhibition", "kv"),
    ("s-inhibition", "negative name mover", "q"),
    ("s-inhibition", "name mover", "q"),
    ("s-inhibition", "backup name mover", "q"),
    ("negative name mover", "logits", ""),
    ("name mover", "logits", ""),
    ("backup name mover", "logits", ""),
)


def _ioi_edges() -> tuple[Edge, ...]:
    """Head to head and head to logits; those from `input` are left to IOI_GROUP_EDGES."""
    edges: list[Edge] = []
    for source, target, parts in IOI_GROUP_EDGES:
        if target == "logits":
            edges += [(_node(head), "logits") for head in _IOI[source]]
        elif source != "input":
            pairs = product(_IOI[source], _IOI[target])
            edges += [(_node(a), _node(b, part)) for a, b in pairs for part in parts if a[0] < b[0]]
    return tuple(edges)


_EARLY, _LATE = (0, 1, 2, 3), (8, 9, 10, 11)
_AMID = ((5, 5), (6, 1), (6, 9), (7, 10), (8, 11), (9, 1))
_START = ((0, 3), (0, 5))


def _greater_than_edges() -> tuple[Edge, ...]:
    mlps, amid = [f"m{layer}" for layer in range(12)], [_node(head) for head in _AMID]
    edges = [("embed", _node(head, part)) for head in (*_START, (0, 1)) for part in "qkv"]
    edges += [("embed", mlps[layer]) for layer in _EARLY]
    edges += [(node, "logits") for node in (*amid, *(mlps[layer] for layer in _LATE))]
    for group in (range(9), _LATE):  # ACDC also joins all MLPs up to 8
        edges += [(mlps[a], mlps[b]) for a in group for b in group if a < b]
    edges += [(_node((0, 1)), mlps[layer]) for layer in _EARLY]
    edges += [(_node(a), _node(b, part)) for a, b, part in product((*_START, (0, 1)), _AMID, "qkv")]
    edges += [
        (mlps[layer], _node(head, part)) for layer, head, part in product(_EARLY, _AMID, "qkv")
    ]
    edges += [
        (_node(head), mlps[layer]) for head, layer in product(_AMID, _LATE) if layer >= head[0]
    ]
    edges += [
        (mlps[layer], _node(head, "q")) for head in _AMID for layer in range(head[0])
    ]  # their queries stay clean
    return tuple(dict.fromkeys(edges))


def _docstring_edges() -> tuple[Edge, ...]:
    edges = [("embed", "a0.h5.v"), ("a0.h5", "a1.h4.v"), ("embed", "a1.h4.v"), ("a1.h4", "a2.h0.v")]
    edges += [
        (source, f"{head}.{part}")
        for source in ("embed", "a0.h5")
        for head in ("a1.h2", "a2.h0")
        for part in "qk"
    ]
    for head in ("a3.h0", "a3.h6"):
        edges += [("a1.h4", f"{head}.q"), ("a2.h0", f"{head}.k"), ("a1.h2", f"{head}.k")]
        edges += [("embed", f"{head}.v"), ("a0.h5", f"{head}.v"), (head, "logits")]
    return tuple(edges)


_GPT2_SMALL = (("gpt2", "gpt2-small"), (12, 12))
PUBLISHED = {
    "ioi": Published(*_GPT2_SMALL, "Wang et al. 2022", _IOI, tuple(range(12)), _ioi_edges()),
    "greater-than": Published(
        *_GPT2_SMALL,
        "Hanna et al. 2023",
        {"start": _START, "early": ((0, 1),), "year": _AMID},
        (*_EARLY, *_LATE),
        _greater_than_edges(),
    ),
    "docstring": Published(
        ("attn-only-4l", "attn_only_4l512w_c4_code"),
        (4, 8),
        "Heimersheim and Janiak 2023",
        {
            "duplicate and previous token": ((0, 5), (1, 2), (1, 4)),
            "induction": ((2, 0),),
            "argument mover": ((3, 0), (3, 6)),
        },
        (),
        _docstring_edges(),
    ),
}


def named(name: str) -> Published:
    """A row of PUBLISHED. Raises UsageError, listing them, for an unknown name."""
    if name not in PUBLISHED:
        raise UsageError(f"no published circuit {name!r}: there are {', '.join(PUBLISHED)}")
    return PUBLISHED[name]
