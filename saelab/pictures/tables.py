"""Images in a column of a table: Parquet, what `save_to_disk` wrote, a hub dataset."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saelab.errors import UsageError
from saelab.pictures.reading import Undecodable

COLUMNS = ("image", "img", "picture", "pixels")  # looked for where nobody says which


def rows(
    name: str, path: Path, column: str, n: int
) -> tuple[Sequence[str], Callable[[int], bytes]]:
    """Name and bytes of each image. Raises UsageError for a table without such a column, and for
    what is neither here nor on the hub."""
    table = _table(name, path, n)
    column = column or next((one for one in COLUMNS if one in table.column_names), "")
    if column not in table.column_names:
        there = ", ".join(table.column_names)
        raise UsageError(
            f"{name} has no column {column or COLUMNS[0]!r} with images; it has {there}: name one "
            "with --image-column"
        )
    table = _undecoded(table, column)
    names = [f"row {number}" for number in range(min(n, len(table)))]
    return names, lambda number: _bytes(table[number][column], names[number])


def _table(name: str, path: Path, n: int) -> Any:
    import datasets

    try:
        if path.is_dir():
            return _one(datasets.load_from_disk(str(path)))
        if path.is_file() and path.suffix.lower() == ".parquet":
            return datasets.Dataset.from_parquet(str(path))
        if path.is_file():
            raise UsageError(f"{name} is no image, .zip or .parquet file")
    except UsageError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{name} cannot be read as a table of images: {reason}") from None
    from saelab.models import hub

    answer = hub.has(name, "dataset")
    if answer != "yes":
        raise UsageError(
            f"no images {name!r}: no such folder or file, and {hub.refusal(answer)}; `scenes` are "
            "drawn here"
        )
    return _one(datasets.load_dataset(name))


def _one(found: Any) -> Any:
    """The first split, `train` where there is one."""
    if hasattr(found, "column_names") and isinstance(found.column_names, list):
        return found
    return found["train" if "train" in found else next(iter(found))]


def _undecoded(table: Any, column: str) -> Any:
    """The table whose column gives bytes."""
    import datasets

    if isinstance(table.features[column], datasets.Image):
        return table.cast_column(column, datasets.Image(decode=False))
    return table


def _bytes(value: Any, name: str) -> bytes:
    if isinstance(value, dict):
        if value.get("bytes") is not None:
            return value["bytes"]
        if value.get("path") and Path(value["path"]).is_file():
            return Path(value["path"]).read_bytes()
    if isinstance(value, bytes):
        return value
    raise Undecodable(f"{name} holds no image")
