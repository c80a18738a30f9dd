"""The feature index of a run, from whatever opened it: a verb or a notebook."""

from typing import Any

from saelab.activations.seen import Looking
from saelab.features import build
from saelab.features.pictures import Pictures
from saelab.opening import Opened


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


def _pictures(opened: Opened, images: str | None) -> Pictures:
    """The images of a cache, for its index to keep."""
    looking = Looking(opened.cache, opened.model, images)
    grid = looking.preparer.grid._asdict()
    labels = looking.labels
    said = (labels.kinds, labels.concepts) if labels else ((), ())
    return Pictures(grid, looking.image, *said)
