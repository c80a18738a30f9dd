"""Every sparsifier of the field as one of two small values: a budget that picks pairs, or a level
that pairs must pass; and those that a Python process registers, by their names.

Shapes: B tokens, F features.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from saelab.errors import UsageError
from saelab.ranges import strict

if TYPE_CHECKING:
    from torch import Tensor

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


@dataclass(frozen=True)
class Own:
    """Keep the pairs that a function registered under this name picks of the pre-activations.

    It is its own inference form: the function decides every token by itself. signed: whether it
    may keep negative ones. See `register`.
    """

    name: str
    signed: bool = False


BuiltIn = Choice | Threshold  # what every backend has
Sparsify = BuiltIn | Own
Mask = Callable[["Tensor"], "Tensor"]

_masks: dict[Own, Mask] = {}

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


def register(name: str, mask: Mask, signed: bool = False) -> None:
    """Add a sparsifier: mask takes pre-activations [B, F] and gives [B, F] bool, the pairs that are
    kept, each token's without regard to the others. It runs on the reference backend, which holds
    [B, F], and is saved by its name alone. Raises UsageError for a name that is taken, and for what
    is no function.

    >>> register("loud", lambda pre_BF: pre_BF > 0.5)
    >>> sae = SAE(d_model=64, n_features=1024, sparsify=named("loud", 0))
    """
    if not isinstance(name, str) or not callable(mask):
        raise UsageError(
            f"register('sparsifier', {name!r}, {mask!r}): a word and a function are right"
        )
    if name in TABLE or name in own_names():
        raise UsageError(f"there is a sparsifier {name!r} already: give it another name")
    _masks[Own(name, signed)] = mask


def own_names() -> list[str]:
    """The names that were registered."""
    return [own.name for own in _masks]


def mask_of(own: Own) -> Mask:
    """The function that was registered. Raises UsageError naming it where none was."""
    if own not in _masks:
        how = f"saelab.register('sparsifier', {own.name!r}, function{', True' * own.signed})"
        raise UsageError(f"the sparsifier {own.name!r} is not known here: {how} first")
    return _masks[own]


def named(name: str, k: int) -> Sparsify:
    """The sparsifier of that name at k pairs per token, of which those that were registered know
    nothing. Raises ValueError listing the names if there is none."""
    every = {**{own.name: lambda k, own=own: own for own in _masks}, **TABLE}
    if name not in every:
        raise ValueError(f"no sparsifier {name!r}; there are {', '.join([*TABLE, *own_names()])}")
    return every[name](k)


def word(sparsify: Sparsify) -> str:
    """What the field calls it.

    >>> word(Choice(32, over="batch"))
    'batchtopk k=32'
    """
    if isinstance(sparsify, Own):
        return sparsify.name
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
    # dictionaries that are no SAEs, in what an origin says of them
    "pca": "PCA",
    "ica": "ICA",
    "semi-nmf": "semi-NMF",
    "k-svd": "K-SVD",
    "mod": "MOD",
    "bsc": "BSC",
    "tsc": "TSC",
    "gsc": "GSC",
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
    other budgets; what was registered is its own."""
    if isinstance(sparsify, Own):
        return sparsify
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
    kinds: dict[Any, type] = {"Choice": Choice, "Threshold": Threshold, "Own": Own}
    fields = dict(fields)
    kind = fields.pop("kind", None)
    if kind not in kinds:
        raise ValueError(f"no sparsifier kind {kind!r}; there are {', '.join(kinds)}")
    return strict(kinds[kind](**fields))
