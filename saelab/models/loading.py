"""Finding a language model by name and loading it behind a TransformerLens bridge.

A name is `bundled`, a folder in Hugging Face layout, or a hub name; they are tried in this order:
folder, local hub cache, hub, each once. Whether a model exists is known before transformer_lens,
whose import takes seconds, is imported.
"""

import contextlib
import json
import weakref
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from saelab.errors import FailedRun, UsageError
from saelab.models import hub

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_loaded: "weakref.WeakKeyDictionary[TransformerBridge, Located]" = weakref.WeakKeyDictionary()


class Located(NamedTuple):
    """Where a model lies. name: `bundled`, the absolute folder, or the hub name. commit: of a hub
    snapshot, else None."""

    name: str
    folder: Path
    commit: str | None = None


def weight_files(folder: Path) -> list[Path]:
    """The model's weight files, sorted by name: safetensors if there are any, else PyTorch's own
    format."""
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def missing_files(folder: Path) -> list[str]:
    """Which parts of a model in Hugging Face layout the folder lacks; every file a sharded model's
    index names counts."""
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = set(json.loads(index.read_text())["weight_map"].values())
        missing += sorted(file for file in named if not (folder / file).is_file())
    elif not weight_files(folder):
        missing.append("model.safetensors")
    if not any((folder / file).is_file() for file in TOKENIZERS):
        missing.append("tokenizer.json")
    return missing


def tokenizer_file(folder: Path) -> Path:
    """The file that holds a model's tokenizer."""
    return next(folder / file for file in TOKENIZERS if (folder / file).is_file())


def _complete(name: str, folder: Path, commit: str | None = None) -> Located:
    if missing := missing_files(folder):
        raise UsageError(f"{folder} is not a model folder: it lacks {', '.join(missing)}")
    return Located(name, folder, commit)


def _bundled() -> Located:
    tried = [Path(str(resources.files("saelab"))) / "_data" / "bundled"]
    tried.append(tried[0].parents[2] / "data" / "bundled")
    for folder in tried:
        if (folder / "config.json").is_file():
            return _complete("bundled", folder)
    raise UsageError(
        f"the bundled model is missing from this installation (looked in {tried[0]} and {tried[1]})"
    )


def locate(name: str | Path) -> Located:
    """Find the model `name`. Raises UsageError, within 3 seconds without a network, when there is
    none or a file is missing."""
    if str(name) == "bundled":
        return _bundled()
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _complete(str(folder.resolve()), folder.resolve())
    name = str(name)
    snapshot = hub.cached(name)
    if snapshot is not None and not missing_files(snapshot):
        return Located(name, snapshot, snapshot.name)
    answer = hub.has(name, "model")
    if answer != "yes":
        raise UsageError(
            f"unknown model {name!r}: no such folder, not in the local hub cache, and {hub.refusal(answer)}; "
            "give a folder in Hugging Face layout, a hub name, or `bundled`"
        )
    snapshot = hub.download(name)
    return _complete(name, snapshot, snapshot.name)


def located(model: object) -> Located | None:
    """Where a model that `load` returned lies; None for one from elsewhere."""
    return _loaded.get(model)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress bars or advice from transformers: a command's standard error ends with its own
    line."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load(name: str | Path, device: str = "cpu") -> "TransformerBridge":
    """Load the model `name` (`bundled`, a folder, a hub name): float32, eval mode, parameters
    without gradients.

    Raises UsageError when there is no such model or TransformerLens does not know its architecture,
    FailedRun when its files are damaged.
    """
    located = locate(name)
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    try:
        with quiet():
            bridge = TransformerBridge.boot_transformers(
                str(located.folder), device=device, dtype=torch.float32
            )
    except ValueError as error:
        raise UsageError(
            f"{located.name} cannot be loaded: {str(error).splitlines()[0]}"
        ) from error
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FailedRun(
            f"{located.name} cannot be loaded, its files may be damaged: {reason}"
        ) from error
    bridge.eval()
    for parameter in bridge.parameters():
        parameter.requires_grad_(False)
    _loaded[bridge] = located
    return bridge
