"""More examples of a feature than its index holds, read from the cache on demand.

Shapes: C contexts of T positions, D width, F features.
"""

import numpy as np
import torch

from saelab.activations import Cache
from saelab.activations.chosen import chosen
from saelab.activations.records import Contexts
from saelab.errors import UsageError
from saelab.features.reader import FeatureIndex
from saelab.features.records import Example
from saelab.features.schema import MORE
from saelab.sae import SAE
from saelab.spelling import spell

CLOSE = 0.02  # of a value, by which another device may differ


@torch.no_grad()
def examples(
    sae: SAE, cache: Cache, index: FeatureIndex, feature: int, n: int = 10
) -> list[Example]:
    """Up to n contexts in which a feature fires and which its index does not show, of both signs,
    drawn uniformly among its firings; strongest first.

    The index knows their places; tokens and activations come from the cache that it was made of,
    which `sae` codes anew. Raises UsageError for a number the SAE does not have, and for a cache in
    which the feature does not fire there with that value.

    >>> folder, sae, cache, _ = saelab.open("runs/demo", needs=("cache",))
    >>> with FeatureIndex(folder.features) as index:
    ...     for example in examples(sae, cache, index, 7): print(example.value)
    """
    places = {context: (position, value) for context, position, value in index.places(feature)[:n]}
    wanted = sorted(places)
    sae, hook, split = sae.frozen(), index.summary["hook"], index.summary["split"]
    names = cache.document_names() if wanted else []
    more = []
    for number, chunk in zip(wanted, chosen(cache, hook, split, wanted), strict=True):
        position, value = places[number]
        column_T = _values(sae, chunk, feature, value)
        if abs(float(column_T[position]) - value) > CLOSE * abs(value):
            raise UsageError(
                f"{cache.path} is not what {index.path} was made of: feature {feature} is "
                f"{float(column_T[position]):.3g} at position {position} of context {number}, not "
                f"{value:.3g}"
            )
        texts = spell(index.vocabulary.pieces(chunk.tokens[0].tolist()))
        owner = names[int(chunk.documents[0, position])]
        place = (1 if value > 0 else -1, MORE, 0, number, position, value, 1)
        more.append(Example(*place, texts, column_T.tolist(), owner))
    more.sort(key=lambda example: -abs(example.value))
    return [example._replace(rank=rank) for rank, example in enumerate(more)]


def _values(sae: SAE, chunk: Contexts, feature: int, value: float) -> np.ndarray:
    """[T] the feature's activations of the sign of `value` in a context, where it counts."""
    code = sae.encode(chunk.acts.to(sae.W_enc)).to("cpu")
    mine = code.features == feature
    column_T = np.zeros(chunk.acts.shape[1], np.float32)
    column_T[code.tokens[mine].numpy()] = code.values[mine].float().numpy()
    column_T[~chunk.counted[0].numpy()] = 0
    return np.where(column_T * value > 0, column_T, 0)
