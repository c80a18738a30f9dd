"""A recipe's values, read as the command line reads its words.

YAML's own guesses are not asked: it takes 1e-3 for text, 010 for 8, 1:30 for 90 and no for false.
"""

from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from saelab.errors import UsageError
from saelab.ranges import number

NESTED = 2  # a list of lists is the deepest value: several `prefixes`
TRUE, FALSE = {"true", "yes", "on"}, {"false", "no", "off"}
NONE = {"", "~", "null", "Null", "NULL", "None"}  # none with a small n is a value of `penalty`
KINDS = "str int float bool null timestamp seq".split()  # what YAML may take a value for


class Word(str):
    """A scalar as the file spells it."""

    quoted = False


def words(path: Path | str) -> dict[str, Any]:
    """The fields of a YAML file: each a `Word`, or a tuple of them. Raises UsageError for a file
    that cannot be read, is no mapping, or gives a field twice."""
    import yaml

    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), yaml.SafeLoader)
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise UsageError(f"{path} is no recipe: it holds no fields such as `k: 32`")
        fields = [(key.value, _word(path, key.value, value)) for key, value in root.value]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UsageError(f"cannot read the recipe {path}: {' '.join(str(error).split())}") from None
    named = dict(fields)
    if len(named) < len(fields):
        names = [name for name, _ in fields]
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{path} gives {twice} twice: give it once, several values as a list")
    return named


def _word(path: Path | str, name: Any, node: Any, depth: int = 0) -> Any:
    """A node's words. The depth is bounded because a node may contain itself."""
    kind = node.tag.rpartition(":")[2]
    if not isinstance(name, str) or kind not in KINDS or depth > NESTED:
        raise UsageError(f"{path}: {name} is no value: give a word, a number or a list of them")
    if kind == "seq":
        return tuple(_word(path, name, one, depth + 1) for one in node.value)
    word = Word(node.value)
    word.quoted = node.style in ("'", '"')
    return word


def typed(path: Path | str, name: str, kind: Any, word: Any) -> Any:
    """A field's value of its words; of a list a tuple of values, for a run each. kind: the field's
    type without annotations. Raises UsageError naming the field for a word that is none of its
    values."""
    try:
        if get_origin(kind) is tuple:
            return _tuple(get_args(kind)[0], word)
        if isinstance(word, tuple):
            return tuple(_value(kind, one) for one in word)
        return _value(kind, word)
    except ValueError as error:
        raise UsageError(f"{path}: {name}: {error}") from None


def _tuple(kind: Any, word: Any) -> tuple:
    """A value that is itself a tuple, or a tuple of such values."""
    several = word if isinstance(word, tuple) else (word,)
    if any(isinstance(one, tuple) for one in several):
        return tuple(_tuple(kind, one) for one in several)
    return tuple(_value(kind, one) for one in several)


def _value(kind: Any, word: Any) -> Any:
    if isinstance(word, tuple):
        raise ValueError("a list of lists is no list of values")
    kinds = get_args(kind)
    if NoneType in kinds:
        if word in NONE and not word.quoted:
            return None
        kind = next(one for one in kinds if one is not NoneType)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if word not in choices:
            raise ValueError(f"{word!r} is none of {', '.join(choices)}")
        return str(word)
    return READ[kind](word)


def _bool(word: str) -> bool:
    if word.lower() not in TRUE | FALSE:
        raise ValueError(f"{word!r} is neither true nor false")
    return word.lower() in TRUE


def _float(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{word!r} is no number") from None


# Suffixes such as 500k are the command line's: to YAML, and to whatever else reads a recipe, they
# are text.
READ = {int: partial(number, suffixes=False), float: _float, bool: _bool, str: str}
