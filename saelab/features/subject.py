"""What an index is made of."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from saelab.activations import Cache
from saelab.sae import SAE
from saelab.spelling import Piece

Others = Sequence[tuple[str, SAE]]


class Subject(NamedTuple):
    """What is indexed."""

    sae: SAE
    """in inference form"""
    cache: Cache
    hook: str
    split: str
    words: list[Piece] | None
    """what the tokens read; None where they are no words"""
    model: Any
    others: Others
    seed: int
    plane: bool
    """whether the directions are laid out in a plane"""
    pictures: Any = None
    """`pictures.Pictures` of contexts that are images"""
