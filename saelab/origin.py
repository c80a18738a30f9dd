"""Where an SAE comes from: a value that travels with its weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from saelab.ranges import strict

# What caches name as their model that are of a synthetic world or of arrays from elsewhere.
SYNTHETIC, ARRAYS = "synthetic", "arrays"
CLT_WEIGHTS = "clt_weights"  # in `more` of a layer's features: SHA-256 of the whole's weights


def part_of(more: Mapping[str, Any]) -> str:
    """What an SAE is whose origin's `more` this is, where it is one layer of a cross-layer
    transcoder; "" of others.

    >>> part_of({"clt_layer": 0, "clt_layers": 4})
    'layer 0 of a cross-layer transcoder of 4 layers'
    """
    layer, n_layers = more.get("clt_layer"), more.get("clt_layers")
    return f"layer {layer} of a cross-layer transcoder of {n_layers} layers" if n_layers else ""


@dataclass(frozen=True)
class Identity:
    """Which model it is. Fields that are None are not known, and not compared."""

    name: str
    """`bundled`, a folder or a hub name: what people call it, which decides nothing"""
    revision: str | None = None
    """commit of a hub snapshot, else SHA-256 over the bytes of the weight files"""
    tokenizer_hash: str | None = None
    """SHA-256 of the tokenizer's file"""
    weights: str | None = None
    """SHA-256 over names, shapes and float32 values of the parameters (`models.identity`)"""

    def to_dict(self) -> dict[str, str]:
        """What is known, for a JSON file."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def known(self) -> bool:
        """Whether there is anything to compare."""
        return bool(self.revision or self.weights)

    def differs(self, other: "Identity") -> str:
        """The name of the first field that says that these are two models, "" if none does.

        Equal files are equal weights; where the files differ, the values decide.
        """
        same_files = self.revision is not None and self.revision == other.revision
        if self.known and other.known and not same_files:
            if not (self.weights and other.weights):
                return "revision"
            if self.weights != other.weights:
                return "weights"
        tokenizers = {self.tokenizer_hash, other.tokenizer_hash} - {None}
        return "tokenizer_hash" if len(tokenizers) > 1 else ""

    @staticmethod
    def from_dict(written: Mapping[str, Any]) -> "Identity":
        """The inverse of `to_dict`; other fields, such as a synthetic world's, are left out."""
        names = {f.name for f in fields(Identity)}
        return strict(Identity(**{name: written[name] for name in written if name in names}))


@dataclass(frozen=True)
class Origin:
    """The model an SAE belongs to, where it reads and writes there, and how it was made.

    Example: `sae.origin = Origin(hook="blocks.2.hook_out", model=models.identity("bundled"))`;
    then `sae.origin.target` is `"blocks.2.hook_out"` too.
    """

    hook: str = ""
    """hook point that it reads"""
    target: str = ""
    """hook point whose activation it explains: the hook itself unless it is a transcoder"""
    model: Identity | None = None
    cache: str | None = None
    """activation cache it was trained on, relative to the run's folder"""
    cache_hash: str | None = None
    """SHA-256 of that cache's manifest"""
    seed: int | None = None
    """of its training"""
    start: int | None = None
    """what its initial weights were drawn from (`initial.weights`); of SAEs that do not say, the
    seed"""
    configuration: str | None = None
    """a word that runs share which differ by their seeds alone"""
    tokens: int | None = None
    """training tokens"""
    sparsify: str | None = None
    """name of the sparsifier in training"""
    k: int | None = None
    """pairs per token in training"""
    source: str | None = None
    """where a published SAE was read from"""
    format: str | None = None
    """name of the form it was published in"""
    file_hash: str | None = None
    """SHA-256 of the published file"""
    more: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """what else its file said"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", self.target or self.hook)

    def __str__(self) -> str:
        hooks = self.hook if self.target == self.hook else f"{self.hook} to {self.target}"
        name = f" of {self.model.name}" if self.model else ""
        return f"at {hooks}{name}"

    def elsewhere(self, other: "Origin") -> str:
        """Why an SAE of another origin is not of the same activations, in words on the other; ""
        if nothing says so."""
        for what, mine, theirs in zip(("reads", "explains"), self.hooks, other.hooks, strict=True):
            if mine != theirs:
                return f"it {what} {theirs or 'an unknown hook'}, not {mine or 'an unknown hook'}"
        if self.model and other.model and (named := self.model.differs(other.model)):
            names = f"it is of the model {other.model.name}, not of {self.model.name}"
            return f"{names}: they differ in {named}"
        return ""

    @property
    def form(self) -> str:
        """Its sparsifier in training and k, where they are known: `topk k=32`."""
        k = "" if self.k is None else f" k={self.k}"
        return f"{self.sparsify}{k}" if self.sparsify else ""

    @property
    def hooks(self) -> tuple[str, str]:
        """Where it reads and what it explains."""
        return self.hook, self.target

    def to_dict(self) -> dict[str, Any]:
        """What is known, for a JSON file."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.model is not None:
            known["model"] = self.model.to_dict()
        return {name: value for name, value in known.items() if value not in (None, "", {})}

    @staticmethod
    def from_dict(written: Mapping[str, Any]) -> "Origin":
        """The inverse of `to_dict`; also reads `about` of schema 1. Unknown fields go to `more`."""
        names = {f.name for f in fields(Origin)}
        known = {name: written[name] for name in written if name in names}
        known["target"] = known.get("target") or ""
        if known.get("model") is not None:
            known["model"] = Identity.from_dict(known["model"])
        more = {name: written[name] for name in written if name not in names}
        known["more"] = {**known.get("more", {}), **more}
        return strict(Origin(**known))
