"""Recipes: YAML files with the fields of a Config, found by path or by the name of one that is shipped here."""

from pathlib import Path

from saelab.errors import UsageError
from training import config
from training.config import Config


def names() -> list[str]:
    """The shipped recipes."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.yaml"))


def read(name: str) -> Config:
    """The Config of a YAML file, or of a shipped recipe. Raises UsageError if there is neither."""
    shipped = Path(__file__).parent / f"{name}.yaml"
    path = Path(name) if Path(name).is_file() or not shipped.is_file() else shipped
    if not path.is_file():
        raise UsageError(f"no recipe {name!r}: neither a file nor one of {', '.join(names())}")
    return config.read(path)
