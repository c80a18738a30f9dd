"""A Hugging Face model read from its folder, whole or not at all.

transformers fills what a folder lacks with random numbers, others at every load. Here a weight
that is missing, reshaped or not finite is refused by name. Only a head that the folder does not
promise may be missing: a base model or a classifier has none to predict tokens with.
"""

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saelab.errors import UsageError
from saelab.files import read_object

if TYPE_CHECKING:
    from torch import Tensor

NAMED = 3  # weights that a message names
WHOLE = "give a folder that save_pretrained wrote of the whole model"


class Reader:
    """Stands where a class of transformers is asked for a model with `from_pretrained`, and keeps
    what the model's files have and lack.

    reader = Reader(AutoModelForCausalLM, "a/folder")
    model = reader.from_pretrained("a/folder", dtype=torch.float32)
    reader.unread, reader.lacking
    """

    def __init__(self, auto: Any, name: str) -> None:
        self.auto, self.name = auto, name
        self.unread: tuple[str, ...] = ()
        """weights in the files that the model has no place for, layers as `*`"""
        self.lacking: tuple[str, ...] = ()
        """weights of a head that the files do not hold; they are NaN in the model"""

    def from_pretrained(self, folder: str | Path, *args: Any, **options: Any) -> Any:
        """The model. Raises UsageError naming weights that are missing, reshaped, or not finite."""
        options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        kind, place = self.auto, folder
        if (whole := _multiplied_out(Path(folder))) is not None:
            kind, place = _class_of(self.auto, folder), None
            options |= {"state_dict": whole, "config": _config(folder)}
        try:
            model, report = kind.from_pretrained(place, *args, **options)
        except RuntimeError as error:  # experts are joined into one weight, and do not fit
            if not (lost := _lost_experts(Path(folder))):
                raise
            raise UsageError(f"{self.name} lacks weights: {named(lost)}; {WHOLE}") from error
        self._refuse_reshaped(report["mismatched_keys"])
        missing, unread = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
        head = [key for key in missing if _of_head(model, key)]
        if len(head) < len(missing) or (head and _promises(model, Path(folder))):
            self._refuse_missing(model, missing, unread)
        refuse_non_finite(model, self.name, head)
        _blank(model, head)
        self.unread, self.lacking = tuple(folded(unread)), tuple(head)
        return model

    def _refuse_reshaped(self, reshaped: Collection[tuple]) -> None:
        if not reshaped:
            return
        key, held, wanted = sorted(reshaped)[0]
        raise UsageError(
            f"{self.name}: {key} has the shape {list(held)}, and the model of its config.json "
            f"{list(wanted)}{_more(len(reshaped) - 1, ' reshaped weights')}: give the config.json "
            "that these weights were saved with"
        )

    def _refuse_missing(self, model: Any, missing: list[str], unread: list[str]) -> None:
        kind = type(model).__name__
        holds = f" and holds {named(unread)}, which it has no place for" if unread else ""
        prefix = _prefix(missing, unread)
        right = f"their names begin with {prefix!r}, save the model without" if prefix else WHOLE
        raise UsageError(f"{self.name} lacks weights of a {kind}: {named(missing)}{holds}; {right}")


def _multiplied_out(folder: Path) -> "dict[str, Tensor] | None":
    """The weights of a folder that holds factors of some; None for any other."""
    from saelab.models import factors

    return factors.whole_weights(folder)


def _config(folder: str | Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder)


def _class_of(auto: Any, folder: str | Path) -> Any:
    """The class that an Auto class makes of a folder's model: it alone takes weights in memory."""
    import torch

    if not hasattr(auto, "from_config"):
        return auto
    with torch.device("meta"):  # shapes alone
        return type(auto.from_config(_config(folder)))


def named(keys: Collection[str]) -> str:
    """The first weights of several by name, and how many more there are."""
    return ", ".join(sorted(keys)[:NAMED]) + _more(len(keys) - NAMED)


def folded(keys: Iterable[str]) -> list[str]:
    """Names of weights with the numbers of layers as `*`, each once."""
    return list(dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", key) for key in sorted(keys)))


def refuse_non_finite(model: Any, name: str, without: Collection[str] = ()) -> None:
    """Raise UsageError naming the weights that hold NaN or infinity; `without` are not looked at.

    A sum is one pass over memory and makes nothing of the weight's size. It may itself overflow,
    so only what it suspects is looked at number by number.
    """
    import torch

    bad = [
        key
        for key, values in model.named_parameters()
        if key not in without and values.is_floating_point() and not values.is_meta
        if not torch.isfinite(values.detach().sum(dtype=torch.float32))
        if not torch.isfinite(values.detach().float()).all()
    ]
    if bad:
        raise UsageError(
            f"{name} has weights that are NaN or infinite: {named(bad)}; give a model whose "
            "training went well"
        )


def refuse_headless(model: Any) -> None:
    """Raise UsageError for a model whose files hold no head that predicts tokens."""
    if lacking := getattr(model, "lacking", ()):
        raise UsageError(
            f"this model predicts no tokens, its files lack {named(lacking)}: name one with a head"
        )


def _more(n: int, what: str = "") -> str:
    return f" and {n} more{what}" if n > 0 else ""


def _of_head(model: Any, key: str) -> bool:
    """Whether a weight lies outside the base model, as what predicts tokens does."""
    base = model.base_model_prefix
    return bool(base) and hasattr(model, base) and not key.startswith(f"{base}.")


def _promises(model: Any, folder: Path) -> bool:
    """Whether the folder says that it holds a model with this head."""
    config = read_object(folder / "config.json")
    return type(model).__name__ in (config.get("architectures") or [type(model).__name__])


def _prefix(missing: list[str], unread: list[str]) -> str:
    """What stands before the name of every unread weight but not of the missing ones: wrappers,
    such as torch.compile's, write such names."""
    pairs = ((key, name) for key in missing for name in unread if name.endswith(f".{key}"))
    prefixes = (name.removesuffix(key) for key, name in pairs)
    return next((one for one in prefixes if all(name.startswith(one) for name in unread)), "")


def _lost_experts(folder: Path) -> list[str]:
    """Weights of some experts that the others of their layer have."""
    from safetensors import safe_open

    keys = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as held:
            keys |= set(held.keys())
    parts = [re.fullmatch(r"(.*\.\d+\..*\.)(\d+)(\..*)", key) for key in keys]
    experts: dict[str, list[set[str]]] = {}
    for part in filter(None, parts):
        numbers, names = experts.setdefault(part[1], [set(), set()])
        numbers.add(part[2])
        names.add(part[3])
    every = {
        f"{layer}{number}{name}"
        for layer, (numbers, names) in experts.items()
        for number in numbers
        for name in names
    }
    return sorted(every - keys)


def _blank(model: Any, keys: Collection[str]) -> None:
    """NaN in the place of random numbers, so that no result can come of them."""
    import torch

    held = dict(model.named_parameters()) | dict(model.named_buffers()) if keys else {}
    with torch.no_grad():
        for key in keys:
            if key in held:
                held[key].fill_(float("nan"))
