"""What a model in a folder is, told from its configuration: no weight is read."""

from pathlib import Path
from typing import Any

from saelab.models import hub
from saelab.models.families import BLOCK, family_of, names, point
from saelab.models.loading import causal_class, locate, missing_files, weight_files


def described(folder: Path) -> dict[str, Any]:
    """Its architecture, sizes, tokenizer, and the hook points with their widths, N being any
    layer; None where only loading it tells them.

        described(Path("models/gpt2"))["hook points"]["blocks.N.hook_resid_post"]  # 768
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder).get_text_config()
    architecture = causal_class(folder)
    return {
        "architecture": architecture,
        "n_layers": getattr(config, "num_hidden_layers", None),
        "d_model": getattr(config, "hidden_size", None),
        "n_heads": getattr(config, "num_attention_heads", None),
        "context": getattr(config, "max_position_embeddings", None),
        "vocabulary": getattr(config, "vocab_size", None),
        "dtype": str(getattr(config, "dtype", None) or "float32").removeprefix("torch."),
        "tokenizer": _tokenizer(folder),
        "hook points": _hooks(architecture, config),
    }


def widths(name: str) -> dict[str, int]:
    """Width by name of the hook points of a model that lies on this machine (of any layer N);
    nothing of one that does not, or that only loading tells.

    widths("bundled")["blocks.N.hook_resid_post"]  # 256
    """
    from transformers import AutoConfig

    folder = Path(name) if Path(name).is_dir() else hub.cached(name)
    if name == "bundled" and not Path(name).is_dir():
        folder = locate(name).folder
    if folder is None or missing_files(folder):
        return {}
    config = AutoConfig.from_pretrained(folder).get_text_config()
    return _hooks(causal_class(folder), config) or {}


def files(folder: Path) -> list[Path]:
    """The files that make it up."""
    kinds = ("*.json", "*.model", "*.txt")
    described_by = {path for kind in kinds for path in folder.glob(kind)}
    return sorted({*described_by, *weight_files(folder)})


def missing(folder: Path) -> list[str]:
    """Those that it lacks."""
    return missing_files(folder)


def _tokenizer(folder: Path) -> dict[str, Any] | None:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError):
        return None
    return {
        "kind": type(tokenizer).__name__,
        "tokens": len(tokenizer),
        "bos": tokenizer.bos_token,
        "eos": tokenizer.eos_token,
    }


def _hooks(architecture: str, config: Any) -> dict[str, int] | None:
    """Width by name of every hook point of a plain model."""
    import torch
    import transformers

    family = family_of(architecture)
    if family is None:
        return None
    with torch.device("meta"):  # shapes alone
        model = getattr(transformers, architecture)(config)
    widths = {}
    for name, canonical in names(family, 1).items():
        place = point(family, config, canonical)
        if place is not None:
            module = model.get_submodule(place.module)
            inside = BLOCK.fullmatch(name)
            widths[f"blocks.N.{inside[2]}" if inside else name] = _width(module, place.side, config)
    return {name: width for name, width in widths.items() if width}


def _width(module: Any, side: str, config: Any) -> int:
    """Of a module's input or output: a linear map has two, all else is as wide as the stream."""
    kind, reads = type(module).__name__, side == "hook_in"
    if kind == "Linear":
        return module.in_features if reads else module.out_features
    if kind == "Conv1D":  # GPT-2's, which keeps its weight the other way round
        return module.weight.shape[0 if reads else 1]
    return config.hidden_size
