"""Every sparsifier of the field as one of two small values: a budget that picks pairs, or a level
that pairs must pass."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from saelab.ranges import strict

Over = Literal["token", "feature", "batch"]


@dataclass(frozen=True)
class Choice:
    """Keep the pairs with the highest scores within a budget of k pairs per token on average.

    over "token": k per token. "batch": k x B over the batch. "feature": k x B over the batch,
    shared out among the features. Score: relu(pre), or |pre| if signed; times 1 + beta |W_dec . g|
    for a gradient g of the model's loss.

    >>> topk = Choice(k=32)
    >>> abstopk_of_a_batch = Choice(k=32, over="batch", signed=True)
    """

    k: int
    over: Over = "token"
    signed: bool = False
    beta: float = 0.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k={self.k} is less than 1")
        if self.over not in ("token", "feature", "batch"):
            raise ValueError(f"over={self.over!r} is none of 'token', 'feature', 'batch'")
        if self.beta < 0:
            raise ValueError(f"beta={self.beta} is negative")


@dataclass(frozen=True)
class Threshold:
    """Keep the pairs whose pre-activation (its absolute value, if signed) passes a level; the SAE
    may hold a level per feature.

    bandwidth: width of the window around the level in which pairs are reported with value 0, for
    the straight-through gradient.

    >>> jumprelu = Threshold(level=0.01, bandwidth=0.02)
    >>> sae = SAE(d_model=64, n_features=1024, sparsify=jumprelu)
    """

    level: float = 0.0
    signed: bool = False
    bandwidth: float = 0.0

    def __post_init__(self) -> None:
        if self.bandwidth < 0:
            raise ValueError(f"bandwidth={self.bandwidth} is negative")


Sparsify = Choice | Threshold

SCORES = {
    "": {},
    "signed-": {"signed": True},
    "gradient-": {"beta": 1.0},
    "signed-gradient-": {"signed": True, "beta": 1.0},
}
BUDGETS: dict[str, Over] = {"topk": "token", "mutual-choice": "batch", "feature-choice": "feature"}

# name: sparsifier at k. The field's names, then every score with every budget; a new variant is a
# new row.
TABLE: dict[str, Callable[[int], Sparsify]] = {
    "topk": Choice,
    "abstopk": partial(Choice, signed=True),
    "batchtopk": partial(Choice, over="batch"),
    "mutual-choice": partial(Choice, over="batch"),
    "feature-choice": partial(Choice, over="feature"),
    "g-sae": partial(Choice, beta=1.0),
    "jumprelu": lambda k: Threshold(bandwidth=0.2),
    "relu": lambda k: Threshold(),
    **{
        f"{score}{budget}": partial(Choice, over=over, **fields)
        for score, fields in SCORES.items()
        for budget, over in BUDGETS.items()
        if score
    },
}


def named(name: str, k: int) -> Sparsify:
    """The sparsifier of that name at k pairs per token. Raises ValueError listing the names if
    there is none."""
    if name not in TABLE:
        raise ValueError(f"no sparsifier {name!r}; there are {', '.join(TABLE)}")
    return TABLE[name](k)


def word(sparsify: Sparsify) -> str:
    """What the field calls it.

    >>> word(Choice(32, over="batch"))
    'batchtopk k=32'
    """
    if isinstance(sparsify, Threshold):
        return "jumprelu" if sparsify.bandwidth or sparsify.level else "relu"
    names = (name for name in TABLE if TABLE[name](sparsify.k) == sparsify)
    return f"{next(names, f'{sparsify.over} choice, beta={sparsify.beta:g}')} k={sparsify.k}"


FIELD = {  # as papers write them
    "topk": "TopK",
    "abstopk": "AbsTopK",
    "batchtopk": "BatchTopK",
    "mutual-choice": "Mutual Choice",
    "feature-choice": "Feature Choice",
    "g-sae": "g-SAE",
    "jumprelu": "JumpReLU",
    "relu": "ReLU",
}


def title(name: str, k: int | None = None) -> str:
    """A sparsifier's name in TABLE as papers write it, with its k if it has one.

    >>> title("topk", 32)
    'TopK k=32'
    """
    name, _, rest = name.partition(" ")
    written = f"{FIELD.get(name, name)} {rest}".strip()
    has_k = k is not None and name not in ("jumprelu", "relu")
    return f"{written} k={k}" if has_k else written


def of_header(header: Mapping[str, Any]) -> str:
    """The sparsifier of a `sae.json` as papers write it: the one it was trained with, else its
    inference form."""
    origin = header.get("origin") or header.get("about") or {}
    if origin.get("sparsify"):
        return title(origin["sparsify"], origin.get("k"))
    try:
        return title(word(from_dict(header["sparsify"])))
    except (TypeError, ValueError):  # another version's
        return str(header["sparsify"].get("kind"))


def inference_form(sparsify: Sparsify) -> Sparsify:
    """What a token alone is coded with: token budgets without the gradient's boost; levels for the
    other budgets."""
    if isinstance(sparsify, Threshold):
        return Threshold(sparsify.level, sparsify.signed)
    if sparsify.over == "token":
        return Choice(sparsify.k, signed=sparsify.signed)
    return Threshold(signed=sparsify.signed)


def to_dict(sparsify: Sparsify) -> dict:
    """Plain values for YAML and JSON."""
    return {"kind": type(sparsify).__name__, **asdict(sparsify)}


def from_dict(fields: dict) -> Sparsify:
    """The inverse of to_dict. Raises ValueError for an unknown kind."""
    kinds = {"Choice": Choice, "Threshold": Threshold}
    fields = dict(fields)
    kind = fields.pop("kind", None)
    if kind not in kinds:
        raise ValueError(f"no sparsifier kind {kind!r}; there are {', '.join(kinds)}")
    return strict(kinds[kind](**fields))
