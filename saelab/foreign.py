"""What others wrote, published SAEs and models, and whether it is whole; no digest tells that.
Importing this imports nothing heavy."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from saelab import digests, looking
from saelab.errors import FailedRun
from saelab.looking import File
from saelab.runs import read

FACTORS = "factors.safetensors"  # of `saelab.models.factors`, whose import takes seconds


def place(path: Path | str) -> Path:
    """Where what is named lies: a path, `hub:org/repo/path` in the local cache of the hub, or
    `bundled`. Raises UsageError for a hub name that is not in the cache."""
    if str(path).startswith("hub:"):
        from saelab.formats import hub

        return hub.held(str(path))
    if str(path) == "bundled" and not Path(path).exists():
        from saelab.models import loading

        return loading.locate("bundled").folder
    return Path(path)


def files(path: Path, below: str = "") -> Iterator[File]:
    """A file, or those of a folder."""
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            yield _look(file, below + file.name)


def _look(file: Path, name: str) -> File:
    """A file, of safetensors its header and length too."""

    def opens() -> None:
        if file.suffix == ".safetensors":
            from safetensors import safe_open

            safe_open(file, "np").__enter__()

    return looking.look(file, name, opens)


def sae(path: Path, form: str, name: str, verify: bool) -> tuple[dict[str, Any], list[File]]:
    """What an SAE of a form is, and its files. name: what the user calls it. verify: every weight
    is read."""
    from saelab.formats import describing

    parts = list(files(path))
    try:
        return describing.described(path, form, name, verify), parts
    except FailedRun as error:
        return {"format": form}, _with_problem(parts, str(error))


def _with_problem(parts: list[File], problem: str) -> list[File]:
    """The files, of which the one that a message names, or else the largest, has it, where none has
    one of its own."""
    if any(file.problem for file in parts):
        return parts
    named = [file for file in parts if f"{file.file} " in problem]
    bad = named[0] if named else max(parts, key=lambda file: file.bytes or 0)
    return [
        file._replace(digest="wrong", problem=problem) if file is bad else file for file in parts
    ]


def is_model(path: Path) -> bool:
    """Whether a folder holds the configuration of a model in Hugging Face layout."""
    config = path / "config.json"
    return config.is_file() and "model_type" in read(config)


def model(path: Path, verify: bool = False) -> tuple[dict[str, Any], list[File]]:
    """What the model of a folder is, and its files, those that are missing included. verify: of one
    that we compressed the digest of its factors is read."""
    from saelab.models import describing

    parts = [_look(file, file.name) for file in describing.files(path)]
    if verify and (path / FACTORS).is_file():
        is_right = partial(digests.tensors_right, path / FACTORS)
        parts = [file for file in parts if file.file != FACTORS]
        parts.append(looking.look(path / FACTORS, FACTORS, is_right))
    lacking = [File(name, None, "not read", "is missing") for name in describing.missing(path)]
    return describing.described(path) if not lacking else {}, [*parts, *lacking]
