"""EleutherAI's sparsify: `cfg.json` and `sae.safetensors`, in a folder named after the module."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from saelab.errors import UsageError
from saelab.files import read_object
from saelab.formats import hooks, tensors
from saelab.formats.matrices import Matrix
from saelab.formats.published import Published
from saelab.formats.refusing import of_sign, of_skip, of_tokens, of_width, refuse
from saelab.origin import Identity, Origin
from saelab.sae import SAE
from saelab.sparsify import Choice

HEADER, WEIGHTS, RUN = "cfg.json", "sae.safetensors", "config.json"
KEYS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")


def recognise(path: Path) -> bool:
    """Whether a folder holds a sparse coder of this form."""
    return (path / HEADER).is_file() and (path / WEIGHTS).is_file()


def read(path: Path) -> Published:
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
    return Published(
        Matrix(held["encoder.weight"]),
        held["encoder.bias"],
        Matrix(held["W_dec"]),
        held["b_dec"],
        Choice(int(cfg["k"])),
        transcoder=transcoder,
        W_skip=held.get("W_skip"),
        sizes={"features": cfg.get("num_latents"), "inputs": cfg.get("d_in")},
        origin=_origin(path, cfg, transcoder),
    )


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
        more={"module": module, **_habits(run)},
    )


HABITS = {"ctx_len": "context_size", "dataset": "dataset_path"}  # our words for a run's


def _habits(run: dict[str, Any]) -> dict[str, Any]:
    return {ours: run[theirs] for theirs, ours in HABITS.items() if run.get(theirs) is not None}


def _run(path: Path) -> dict[str, Any]:
    """What the run's own config.json says, which lies one or two folders up, or beside cfg.json in
    what is written here."""
    for folder in (path, path.parent, path.parent.parent):
        if (folder / RUN).is_file():
            return read_object(folder / RUN)
    return {}


def write(sae: SAE, path: Path) -> None:
    """Write a TopK SAE or transcoder. Raises UsageError for anything else.

    >>> formats.save(sae, "run/layers.3", "sparsify")
    """
    sae = sae.frozen()
    reasons = chain(of_tokens(sae), of_skip(sae), of_width(sae), of_sign(sae), _no_topk(sae))
    refuse(sae, "sparsify", reasons)
    assert isinstance(sae.sparsify, Choice)
    skip = {} if sae.W_skip is None else {"W_skip": sae.W_skip}
    held = {"encoder.weight": sae.W_enc, "encoder.bias": sae.b_enc, "W_dec": sae.W_dec}
    tensors.write_safetensors({**held, "b_dec": sae.b_dec, **skip}, path / WEIGHTS)
    cfg = {
        "activation": "topk",
        "expansion_factor": max(1, sae.n_features // sae.d_model),
        "normalize_decoder": not sae.transcoder,
        "num_latents": sae.n_features,
        "k": sae.sparsify.k,
        "multi_topk": False,
        "skip_connection": sae.W_skip is not None,
        "transcode": sae.transcoder,
        "d_in": sae.d_model,
    }
    tensors.write_fields(cfg, path / HEADER)
    origin = sae.origin
    run = {theirs: origin.more[ours] for theirs, ours in HABITS.items() if ours in origin.more}
    if origin.model:
        run["model"] = origin.model.name
    if run:
        tensors.write_fields(run, path / RUN)


def _no_topk(sae: SAE) -> Iterator[str]:
    if not isinstance(sae.sparsify, Choice):
        yield "it has thresholds, and only a top-k is held there"
