"""Which model this is: by the values of its parameters, wherever they lie and whatever holds them.

The weights' identity is the SHA-256, over the parameters by sorted name, of name, shape and values
as float32. Names are Hugging Face's, without the prefix of the base model, so that a base model and
the same one with a tied head agree; tied parameters count once, under the first of their names;
buffers do not count. A copy that is renamed, split into other files or stored in a wider type has
the same identity, one that is fine-tuned or rounded has another.
"""

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelab.digests import sha256
from saelab.errors import UsageError
from saelab.models import loading
from saelab.models.model import Located, Model, quiet
from saelab.origin import Identity

if TYPE_CHECKING:
    from torch import Tensor, nn

_digests: dict[tuple, str | None] = {}  # by the files' paths, sizes and times: each is read once


def name_of(model: Any) -> str:
    """What a model is called; nothing is hashed. model: what `load` returned, or one in memory."""
    if place := loading.located(model):
        return place.name
    model = _inside(model)
    config = getattr(model, "cfg", None) or getattr(model, "config", None)
    named = getattr(config, "model_name", "") or getattr(config, "_name_or_path", "")
    return str(named) or type(model).__name__


def dtype_of(model: Any) -> str:
    """What a model computes in: the dtype of its first parameter.

    dtype_of(models.load("bundled"))  # 'float32'
    """
    return str(next(model.parameters()).dtype).removeprefix("torch.")


def identity(model: Any, *, weights: bool = True) -> Identity:
    """Which model this is; a field that cannot be known is None.

    model: a name, what `load` returned, or a Hugging Face model or bridge in memory. weights: also
    hash the parameters' values, which takes loading them. Raises UsageError for an unknown name.

        identity("bundled").weights == identity(AutoModelForCausalLM.from_pretrained(DIR)).weights
    """
    is_name = isinstance(model, str | Path)
    place = loading.locate(model) if is_name else loading.located(model)
    if place is None:
        return Identity(name_of(model), weights=_in_memory(model) if weights else None)
    files = loading.weight_files(place.folder)
    return Identity(
        place.name,
        place.commit or _once("bytes", files, lambda: sha256(*files)),
        sha256(loading.tokenizer_file(place.folder)),
        _values(model, place, files) if weights else None,
    )


def record(model: Any) -> dict[str, Any]:
    """What a cache records of its model: its identity, and as `unread` the weights in its files
    that it has no place for, layers as `*`."""
    unread = list(getattr(model, "unread", ()))
    return {**identity(model).to_dict(), **({"unread": unread} if unread else {})}


def check(model: Any, record: Identity, what: str) -> bool:
    """Whether a model is known to be the one on record: False where either side does not say.

    Values are compared only where the files differ. what: whose record it is. Raises UsageError
    naming the first field in which they differ.
    """
    here = identity(model, weights=False)
    if record.weights and record.revision != here.revision:
        here = identity(model)
    if field := record.differs(here):
        theirs, mine = (str(getattr(one, field))[:12] for one in (here, record))
        raise UsageError(
            f"{what} belongs to {record.name}, and {here.name} is another model by its {field}: "
            f"{theirs}, not {mine}; name the right one with --model"
        )
    return record.known and here.known


def _inside(model: Any) -> Any:
    """What the user has in memory, behind the door or not."""
    if not isinstance(model, Model):
        return model
    return model.bridge if model.plain is None else model.plain


def _once(kind: str, files: list[Path], digest: Any) -> str | None:
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = (kind, *stamps)
    if key not in _digests:
        _digests[key] = digest()
    return _digests[key]


def _values(model: Any, place: Located, files: list[Path]) -> str | None:
    """Of what is in memory where its parameters are as they were read, else of the files."""
    if isinstance(model, Model) and model.plain is not None and not _is_rounded(model):
        return _in_memory(model)
    return _once("values", files, lambda: _in_folder(place))


def _is_rounded(model: Any) -> bool:
    """Whether parameters may be less exact than in the files."""
    return any(parameter.element_size() < 4 for parameter in model.parameters())


def _in_folder(place: Located) -> str | None:
    with quiet():
        reader = loading.reader(place)
        return _digest(reader.from_pretrained(place.folder, dtype="auto"), reader.lacking)


def _in_memory(model: "nn.Module | Model") -> str | None:
    """The identity of a Hugging Face model or of the one inside a bridge; None for any other, such
    as one that holds rearranged weights under names of its own."""
    inside = _inside(model)
    inner = getattr(inside, "original_model", inside)
    lacking = model.lacking if isinstance(model, Model) else ()
    return _digest(inner, lacking) if hasattr(inner, "base_model_prefix") else None


def _digest(model: Any, lacking: Collection[str] = ()) -> str | None:
    """None if parameters that the class of the model has are not found in it. lacking: those that
    its files do not hold."""
    import torch

    with torch.device("meta"):
        every = [name for name, _ in type(model)(model.config).named_parameters()]
    names = [name for name in every if name not in lacking]
    parameters = dict(_parameters(model))
    if not set(names) <= set(parameters):
        return None
    prefix, digest = f"{model.base_model_prefix}.", hashlib.sha256()
    for name, full in sorted((full.removeprefix(prefix), full) for full in names):
        values = parameters[full].detach()
        digest.update(f"{name} {list(values.shape)}\n".encode())
        digest.update(values.float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _parameters(module: "nn.Module", prefix: str = "") -> "Iterator[tuple[str, Tensor]]":
    """Parameters by Hugging Face's names, through the wrappers that a bridge puts around modules:
    each keeps the module it wraps as `_original_component` and its path in the model as `name`."""
    for name, parameter in module.named_parameters(recurse=False):
        yield prefix + name, parameter
    for key, child in module.named_children():
        if key == "_original_component":
            yield from _parameters(child, prefix)
        else:
            wrapped = hasattr(child, "_original_component") and getattr(child, "name", None)
            own = str(wrapped).rsplit(".", 1)[-1] if wrapped else key
            yield from _parameters(child, f"{prefix}{own}.")
