"""A whole model compressed: every group of its matrices as factors, and the folders of the result.

factors/   the model with its matrices as factors: `models.load` reads it, at their bytes
dense/     the same multiplied out: a plain folder in Hugging Face layout, for any program
"""

import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saelab import models
from saelab.analysis.compression.factorise import METHODS, Plan, factorise
from saelab.analysis.compression.matrices import Matrix, columns_of
from saelab.analysis.compression.moments import Gram, summed, whitening
from saelab.errors import UsageError
from saelab.files import write_atomic
from saelab.models import factors
from saelab.models.factors import Group
from saelab.models.model import Model, quiet

FACTORS, DENSE = "factors", "dense"  # folders
TOKENIZER = ("*token*", "vocab*", "merges*", "*.model", "chat_template*")  # files of one


def compress(
    model: Any,
    groups: Sequence[Sequence[Matrix]],
    grams: Mapping[str, Gram],
    method: str,
    plan: Plan,
    ridge: float = 0.0,
    progress: Callable[[int], object] = lambda done: None,
) -> list[Group]:
    """The matrices of each group as factors, one dictionary per group.

    grams: by hook, of which a group's are added up; methods that are not calibrated need none.
    Raises UsageError naming moments that cannot be whitened, and as `factorise` does.

        groups = grouped(matrices(model), 1)
        compress(model, groups, grams(model, cache, hooks), "cospadi", Plan(0.2))
    """
    made = []
    for group in groups:
        W_IO, parts = columns_of(model, group)
        L_II = None
        if method in METHODS and METHODS[method].calibrated:
            hooks = [matrix.hook for matrix in group]
            L_II = whitening(summed(grams, hooks), " and ".join(hooks), ridge)
        made.append(Group(parts, factorise(W_IO, L_II, method, plan)))
        progress(len(made))
    return made


def multiplied_out(model: Any, groups: Sequence[Group]) -> Model:
    """A copy in memory of a model, with its matrices as the factors have them."""
    plain = copy.deepcopy(model.plain)
    _set(plain, groups)
    return Model(plain, model.tokenizer)


def write(out: Path, model: Any, groups: Sequence[Group]) -> None:
    """Write both folders of a model that lies in one, each whole or not at all; other weights keep
    the dtype that they are stored in.

    write(Path("small"), models.load("bundled"), groups)
    """
    if model.located is None:
        raise UsageError("a model in memory has no folder to take a tokenizer from: name a folder")
    whole = models.load(model.located.name, dtype=_stored_dtype(model.located.folder))
    _set(whole.plain, groups)
    write_atomic(out / DENSE, lambda folder: _dense(folder, whole))
    write_atomic(out / FACTORS, lambda folder: _factored(folder, out / DENSE, groups))


def _set(plain: Any, groups: Sequence[Group]) -> None:
    for group in groups:
        for name, weight in group.weights().items():
            held = plain.get_parameter(name).data
            held.copy_(weight.to(held))


def _stored_dtype(folder: Path) -> str:
    from transformers import AutoConfig

    stored = AutoConfig.from_pretrained(folder).dtype
    return str(stored or "float32").removeprefix("torch.")


def _dense(folder: Path, model: Any) -> None:
    with quiet():
        model.plain.save_pretrained(folder)
    for pattern in TOKENIZER:
        for file in model.located.folder.glob(pattern):
            shutil.copyfile(file, folder / file.name)


def _factored(folder: Path, dense: Path, groups: Sequence[Group]) -> None:
    from safetensors.torch import load_file

    folder.mkdir()
    others = {}
    for file in sorted(dense.iterdir()):
        if file.suffix == ".safetensors":
            others |= load_file(file)
        elif file.name != "model.safetensors.index.json":
            shutil.copyfile(file, folder / file.name)
    compressed = {part.name for group in groups for part in group.parts}
    kept = {name: weight for name, weight in others.items() if name not in compressed}
    factors.write(folder / factors.NAME, groups, kept)
