"""The feature index of a run, from whatever opened it: a verb or a notebook."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saelab import one_layer
from saelab.activations.seen import Looking
from saelab.coder import Coder
from saelab.cross_layer import CrossLayerTranscoder
from saelab.errors import UsageError
from saelab.features import build
from saelab.features.pictures import Pictures
from saelab.opening import Opened
from saelab.origin import CLT_WEIGHTS
from saelab.sae import SAE

Others = Sequence[tuple[str, Coder]]
PROBE_TOKENS = 64


def build_index(opened: Opened, images: str | None = None, **options: Any) -> dict:
    """Write the run's features.db; its summary.

    images: of a vision model, where those of the cache lie now (default: where they did). options:
    of `saelab.features.build.build`, such as others, n_tokens, split, seed, plane, progress.

        build_index(saelab.open("runs/demo"), n_tokens=10**6)["n_features"]
    """
    folder, sae, cache, model = opened
    reads_text = getattr(model, "reads_text", True)
    return build.build(
        sae,
        cache,
        sae.origin.hook,
        folder.features,
        tokenizer=getattr(model, "tokenizer", None),
        model=model if reads_text else None,
        pictures=None if reads_text else _pictures(opened, images),
        digest=folder.sae_digest(),
        **options,
    )


def by_layer(opened: Opened, others: Others = ()) -> Iterator[tuple[Opened, list[tuple[str, SAE]]]]:
    """What `build_index` takes, and the others that every feature is looked up in: of an SAE, as
    it is; of a cross-layer transcoder layer after layer, whose features are written as a transcoder
    into a folder of their own in the run.

    others: (name, coder) pairs of the same kind. Raises UsageError where one is of another.

        for one, _ in by_layer(opening.open("runs/clt", any_kind=True)):
            build_index(one)
    """
    clt = opened.sae
    for name, other in others:
        if isinstance(other, CrossLayerTranscoder) != isinstance(clt, CrossLayerTranscoder):
            raise UsageError(f"{name} is {other!r}, which has no features of this kind")
    if not isinstance(clt, CrossLayerTranscoder):
        yield opened, [(name, other) for name, other in others if isinstance(other, SAE)]
        return
    for i in range(clt.n_layers):
        folder, sae = opened.folder.layer(i), one_layer.transcoder(clt, i)
        cache = sae.origin.cache
        if cache and not Path(cache).is_absolute():
            sae.origin = replace(sae.origin, cache=Path("..", cache).as_posix())
        more = {**sae.origin.more, CLT_WEIGHTS: opened.folder.sae_digest()}
        sae.origin = replace(sae.origin, more=more)
        probe = next(opened.cache.counted(sae.origin.hook, "train", PROBE_TOKENS)).x
        sae.save(folder.sae, probe[:PROBE_TOKENS].to(sae.W_enc))
        same = [
            (name, one_layer.transcoder(other, i))
            for name, other in others
            if isinstance(other, CrossLayerTranscoder)
        ]
        yield opened._replace(folder=folder, sae=sae), same


def _pictures(opened: Opened, images: str | None) -> Pictures:
    """The images of a cache, for its index to keep."""
    looking = Looking(opened.cache, opened.model, images)
    grid = looking.preparer.grid._asdict()
    labels = looking.labels
    said = (labels.kinds, labels.concepts) if labels else ((), ())
    return Pictures(grid, looking.image, *said)
