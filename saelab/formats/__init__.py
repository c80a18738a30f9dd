"""The forms in which SAEs lie on disk: a row each of one table, which reading and writing look up.

A form that is missing here can be added from outside:

    formats.register(Format("mine", "weights.bin", recognise, read))
    sae = SAE.load("folder/with/weights.bin")
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saelab.errors import UsageError
from saelab.formats import native

if TYPE_CHECKING:
    from saelab.sae import SAE


class Format(NamedTuple):
    """One form of SAE files.

    >>> mine = Format("mine", "a folder with mine.json", is_mine, read_mine)
    >>> saelab.register("format", mine)
    """

    name: str
    """what it is called in messages and in `Origin.format`"""
    files: str
    """what it is known by, in words"""
    recognise: Callable[[Path], bool]
    """whether a folder or file is of this form, told without reading weights"""
    read: "Callable[[Path], SAE]"
    write: Callable[..., None] | None = None
    """write(sae, path, **options); None if this form can only be read"""


FORMATS = {
    "saelab": Format("saelab", "sae.json", native.recognise, native.read, native.write),
}


def register(form: Format) -> None:
    """Add a form. Raises UsageError for what is no form, and for a name that is taken."""
    if not isinstance(form, Format):
        raise UsageError(f"{form!r} is a {type(form).__name__}: a saelab.Format is right")
    if not (callable(form.recognise) and callable(form.read)):
        raise UsageError(f"`recognise` and `read` of format {form.name} must be functions")
    if form.name in FORMATS:
        raise UsageError(f"there is a format {form.name!r} already: choose another name")
    FORMATS[form.name] = form


def known(place: Path) -> Format | None:
    """The form of a folder or file itself; None if it has no known one, or does not exist."""
    forms = FORMATS.values() if place.exists() else ()
    return next((form for form in forms if form.recognise(place)), None)


def load(path: Path | str) -> "SAE":
    """The SAE of a folder or file of any known form, or of a run that holds one in `sae/`.

    Raises UsageError where nothing known lies, with what was seen and what is known; whatever the
    form's own reader raises.

        sae = formats.load("runs/demo")
    """
    path = Path(path)
    for place in (path, path / "sae"):
        if form := known(place):
            return form.read(place)
    forms = ", ".join(f"{form.name} ({form.files})" for form in FORMATS.values())
    raise UsageError(f"{path} holds no SAE: {seen(path)}; known are {forms}")


def save(sae: "SAE", path: Path | str, form: str = "saelab", **options: Any) -> None:
    """Write an SAE in a form. Raises UsageError for one that is unknown or can only be read."""
    writers = {name: row.write for name, row in FORMATS.items() if row.write}
    if form not in writers:
        raise UsageError(f"no format {form!r} to write; there are {', '.join(writers)}")
    writers[form](sae, Path(path), **options)


def seen(path: Path) -> str:
    """What lies at a path, in words, for who expected something else."""
    if not path.exists():
        return "there is no such folder"
    if not path.is_dir():
        return f"it is a file of {path.stat().st_size:,} bytes"
    names = sorted(entry.name for entry in path.iterdir())
    if "config.yaml" in names:
        return "its training has not finished (`saelab train --resume` goes on with it)"
    return f"it has {', '.join(names[:5])}{', ...' * (len(names) > 5)}" if names else "it is empty"
