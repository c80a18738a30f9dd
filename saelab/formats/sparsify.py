"""EleutherAI's sparsify: `cfg.json` and `sae.safetensors`, in a folder named after the module."""

from pathlib import Path
from typing import Any

from saelab.errors import UsageError
from saelab.files import read_object
from saelab.formats import hooks, tensors
from saelab.formats.matrices import Matrix
from saelab.formats.published import Published, made
from saelab.origin import Identity, Origin
from saelab.sae import SAE
from saelab.sparsify import Choice

HEADER, WEIGHTS = "cfg.json", "sae.safetensors"
KEYS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")


def recognise(path: Path) -> bool:
    """Whether a folder holds a sparse coder of this form."""
    return (path / HEADER).is_file() and (path / WEIGHTS).is_file()


def read(path: Path) -> SAE:
    """The SAE or transcoder of a folder. Raises UsageError for one that chooses by groups."""
    cfg, held = read_object(path / HEADER), tensors.of_safetensors(path / WEIGHTS)
    tensors.need(held, KEYS, path / WEIGHTS)
    if cfg.get("activation", "topk") != "topk":
        raise UsageError(
            f"{path} chooses one feature of each of {cfg['k']} groups ({cfg['activation']}), which "
            "is no top-k: it has no form here"
        )
    if cfg.get("signed"):
        raise UsageError(f"{path} is signed, in a way that newer sparsify dropped: no form here")
    transcoder = bool(cfg.get("transcode", False))
    source = Published(
        Matrix(held["encoder.weight"]),
        held["encoder.bias"],
        Matrix(held["W_dec"]),
        held["b_dec"],
        Choice(int(cfg["k"])),
        transcoder=transcoder,
        W_skip=held.get("W_skip"),
        origin=_origin(path, cfg, transcoder),
    )
    return made(source)


def _origin(path: Path, cfg: dict[str, Any], transcoder: bool) -> Origin:
    run = _run(path)
    model = str(run.get("model", ""))
    module = path.parent.name if path.name.startswith("seed") else path.name
    hook = target = ""
    if hooks.BLOCK.match(module) or module in hooks.EMBEDDINGS:
        target = hooks.of_module(module, "output", model)
        hook = hooks.of_module(module, "input", model) if transcoder else target
    return Origin(
        hook=hook,
        target=target,
        model=Identity(model) if model else None,
        sparsify="topk",
        k=int(cfg["k"]),
        source=str(path),
        format="sparsify",
        more={"module": module, **{name: run[name] for name in ("ctx_len",) if name in run}},
    )


def _run(path: Path) -> dict[str, Any]:
    """What the run's own config.json says, which lies one or two folders up."""
    for folder in (path.parent, path.parent.parent):
        if (folder / "config.json").is_file():
            return read_object(folder / "config.json")
    return {}
