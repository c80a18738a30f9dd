"""A published SAE as it is taken over into a run: where it comes from, what was applied to it, and
what its files do not say."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from saelab import formats
from saelab.digests import sha256
from saelab.formats import hub
from saelab.formats.processed import may_be_mean_free
from saelab.formats.published import Published
from saelab.origin import Identity
from saelab.sae import SAE

FACTS = ("prepend_bos", "context_size")
REVISIONS = ("revision", "checkpoint_value", "checkpoint_index")  # that pick one of a training's


def imported(
    source: str,
    form: str | None = None,
    *,
    model: str | None = None,
    hook: str | None = None,
    target: str | None = None,
) -> SAE:
    """The SAE of a folder, a file or a hub name (`hub:org/repo/path`), with the digest of what it
    was read from; model, hook and target replace what it says.

    >>> sae = imported("gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82", hook=hook)
    >>> sae.save("runs/theirs/sae")
    """
    path = hub.fetched(source) if source.startswith(hub.PREFIX) else Path(source)
    sae = formats.load(path, form)
    origin = replace(sae.origin, source=source, file_hash=digest(path))
    if model:
        origin = replace(origin, model=Identity(model))
    # A transcoder that says what it explains goes on saying so; an autoencoder explains its hook.
    said = origin.target if origin.target != origin.hook else None
    reads = hook or origin.hook
    sae.origin = replace(origin, hook=reads, target=target or said or reads)
    return sae


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and digests of all files of a folder."""
    if path.is_file():
        return sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = (f"{file.relative_to(path)} {sha256(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def unknown(sae: SAE | Published) -> Iterator[str]:
    """What its files do not say, and somebody has to."""
    origin = sae.origin
    if origin.model is None:
        yield "the model: --model says which"
    if not origin.hook:
        yield "the hook point that it reads: --hook says which"
    if sae.transcoder and origin.hook and origin.target == origin.hook:
        yield "the hook point that it explains: --target says which"
    options: Any = origin.more.get("model_from_pretrained_kwargs")
    model = origin.model.name if origin.model else ""
    version = origin.more.get("version")
    if origin.format == "saelens" and may_be_mean_free(version, origin.hook, model, options):
        yield (
            "whether its model's writing weights were centred, as they were by default before "
            "SAELens 3.19.2: --check CACHE tells"
        )
    for name in REVISIONS:
        if (revision := (options or {}).get(name)) is not None:
            yield f"its model by name alone: {name} {revision} of it is meant"
    for name in FACTS:
        if name not in origin.more:
            yield f"{name.replace('_', ' ')} of its training"
