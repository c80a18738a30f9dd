"""Recipes: YAML files with the fields of a Config, or lists of their values, found by path or by a
shipped one's name."""

from pathlib import Path

from saelab.errors import UsageError

from .. import config
from ..config import Config
from ..sweep import Sweep, of


def names() -> list[str]:
    """The shipped recipes."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.yaml"))


def sweep(name: str) -> Sweep:
    """The runs of a YAML file, or of a shipped recipe. Raises UsageError if there is neither."""
    shipped = Path(__file__).parent / f"{name}.yaml"
    path = Path(name) if Path(name).is_file() or not shipped.is_file() else shipped
    if not path.is_file():
        raise UsageError(f"no recipe {name!r}: neither a file nor one of {', '.join(names())}")
    return of(config.values(path))


def read(name: str) -> Config:
    """The Config of a recipe for one run. Raises UsageError for one of several."""
    recipe = sweep(name)
    if recipe.over:
        raise UsageError(f"{name} is a recipe of several runs: {', '.join(recipe.over)} are lists")
    return recipe.base
