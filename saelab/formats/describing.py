"""What a published SAE is, as its files say it: told from its configuration and the names and
shapes of its tensors, without a number of its weights."""

from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

from saelab import formats
from saelab.errors import UsageError
from saelab.formats.imported import unknown
from saelab.formats.published import Published, applied, check, made
from saelab.sparsify import Choice

LIMIT = 10_000  # SAEs of a folder that are listed


def described(path: Path, form: str, name: str, weights: bool = False) -> dict[str, Any]:
    """What is known of the SAE at a path of a form, what reading it applies, what its files do not
    say, and what to type to use it; of one that has no form here, why.

    name: what the user calls it. weights: read these too, as `import` does. Raises FailedRun for
    damaged files and those that contradict each other.

    >>> described(Path("theirs/layers.3"), "sparsify", "theirs/layers.3")["architecture"]
    'topk'
    """
    try:
        source = formats.meant(path, form)
        if not isinstance(source, Published):  # a form that somebody registered
            return {"format": form, **_origin(source.origin), "next": list(_commands(source, name))}
        check(source)
        if weights:
            made(source)
    except UsageError as error:
        return {"format": form, "refused": str(error)}
    return {
        "format": form,
        "version": source.origin.more.get("version"),
        "architecture": _architecture(source),
        **_sizes(source),
        **_origin(source.origin),
        "applied": applied(source),
        "unknown": list(unknown(source)),
        "next": list(_commands(source, name)),
    }


def _architecture(source: Published) -> str:
    """In the field's words."""
    trained = source.origin.sparsify or "relu"
    skip = "skip " if source.W_skip is not None else ""
    return f"{trained} {skip}transcoder" if source.transcoder else trained


def _sizes(source: Published) -> dict[str, Any]:
    (n_features, d_model), d_out = source.W_enc.shape, source.W_dec.shape[1]
    form, origin = source.sparsify, source.origin
    l0 = origin.more.get("l0") or (None if isinstance(form, Choice) else origin.k)
    return {
        "d_model": d_model,
        "n_features": n_features,
        "d_out": d_out,
        "k": form.k if isinstance(form, Choice) else None,
        "recorded L0": l0,
        "dtype": str(source.W_enc.stored.dtype).removeprefix("torch."),
    }


def _origin(origin: Any) -> dict[str, Any]:
    return {
        "model": origin.model.name if origin.model else None,
        "hook": origin.hook or None,
        "target": origin.target if origin.target != origin.hook else None,
        "training": {
            name: value for name, value in origin.more.items() if name not in ("version", "applied")
        },
    }


def _commands(source: Any, name: str) -> Iterator[str]:
    """What to type to use it."""
    origin = source.origin
    needed = {
        " --model M": origin.model is None,
        " --hook H": not origin.hook,
        " --target T": source.transcoder and origin.target == origin.hook,
    }
    options = "".join(option for option, is_so in needed.items() if is_so)
    yield f"saelab import {quote(name)} --out RUN{options}"
    yield "saelab capture --for RUN"
    yield "saelab eval RUN"


def of_many(path: Path, name: str) -> dict[str, Any]:
    """The SAEs in a folder, by the word that selects each; empty where there is none. name: what
    the user calls the folder."""
    inside = formats.several(path)
    if not inside:
        return {}
    forms = [row.name for word in inside if (row := formats.known(path / word))]
    return {
        "formats": {form: forms.count(form) for form in dict.fromkeys(forms)},
        "holds": inside[:LIMIT],
        "next": [
            f"saelab info {quote(f'{name}/{inside[0]}')}",
            f"saelab import {quote(name)} --select {quote(inside[0])} --out RUN",
        ],
    }
