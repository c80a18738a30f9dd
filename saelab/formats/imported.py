"""A published SAE as it is taken over into a run: where it comes from, what was applied to it, and
what its files do not say."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from saelab import formats
from saelab.coder import Coder
from saelab.digests import sha256
from saelab.errors import UsageError
from saelab.formats import hub
from saelab.formats.processed import may_be_mean_free
from saelab.formats.published import Published, made
from saelab.origin import Identity, Origin

LAYER = re.compile(r"^blocks\.\d+\.")
FACTS = ("prepend_bos", "context_size")
REVISIONS = ("revision", "checkpoint_value", "checkpoint_index")  # that pick one of a training's


def imported(
    source: str,
    form: str | None = None,
    *,
    model: str | None = None,
    hook: str | None = None,
    target: str | None = None,
) -> Coder:
    """The SAE of a folder, a file or a hub name (`hub:org/repo/path`), with the digest of what it
    was read from; model, hook and target replace what it says.

    Raises UsageError, before a weight is read, for an autoencoder that is said to explain another
    place, and for a place of another width in a model that lies here; what `formats.load` raises.

    >>> sae = imported("gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82", hook=hook)
    >>> sae.save("runs/theirs/sae")
    """
    path = hub.fetched(source) if source.startswith(hub.PREFIX) else Path(source)
    meaning = formats.meant(path, form)
    origin = _told(meaning.origin, model, hook, target)
    if isinstance(meaning, Published):
        meaning = _as_transcoder(meaning, origin, source)
        n_outputs = meaning.W_dec.shape[1]
        _check_widths(origin, {origin.hook: meaning.W_enc.shape[1], origin.target: n_outputs})
        sae = made(meaning)
    else:
        sae = meaning
    applied = {"applied": sae.origin.more["applied"]} if "applied" in sae.origin.more else {}
    more = {**origin.more, **applied}
    sae.origin = replace(origin, source=source, file_hash=digest(path), more=more)
    return sae


def _told(origin: Origin, model: str | None, hook: str | None, target: str | None) -> Origin:
    """Where an SAE belongs, by what its files say and what replaces that."""
    if model:
        origin = replace(origin, model=Identity(model))
    # A transcoder that says what it explains goes on saying so; an autoencoder explains its hook.
    said = origin.target if origin.target != origin.hook else None
    reads = hook or origin.hook
    return replace(origin, hook=reads, target=target or said or reads)


def _as_transcoder(meaning: Published, origin: Origin, source: str) -> Published:
    """The same as a transcoder, where it is said to explain another place than it reads and its
    files do not tell the two apart. Raises UsageError where they do: it is an autoencoder."""
    if meaning.transcoder or origin.target == origin.hook:
        return meaning
    if meaning.centred:
        raise UsageError(
            f"{source} is an autoencoder, it subtracts from its input the bias that it adds to its "
            f"output: it cannot explain {origin.target} from {origin.hook}"
        )
    return replace(meaning, transcoder=True)


def _check_widths(origin: Origin, due: dict[str, int]) -> None:
    """Raise UsageError for a model that lies on this machine and is of another width there. What
    only loading it tells is not checked."""
    from saelab.models import describing

    widths = describing.widths(origin.model.name) if origin.model else {}
    for hook, width in due.items():
        if (held := widths.get(LAYER.sub("blocks.N.", hook), width)) != width:
            raise UsageError(
                f"{hook} of {origin.model and origin.model.name} is {held:,} wide, the SAE has "
                f"{width:,}: it is of another model or place"
            )


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and digests of all files of a folder."""
    if path.is_file():
        return sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = (f"{file.relative_to(path)} {sha256(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def unknown(sae: Coder | Published) -> Iterator[str]:
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
