"""A few contexts of a cache, by their numbers."""

from collections.abc import Iterable, Iterator

from saelab.activations.cache import Cache
from saelab.activations.records import Contexts
from saelab.activations.stored import Stored
from saelab.errors import UsageError


def chosen(cache: Cache, hook: str, split: str, numbers: Iterable[int]) -> Iterator[Contexts]:
    """Contexts of a split by their ascending numbers in it, one at a time; no others are read.
    Raises UsageError for a number that the split does not have.

    >>> first, tenth = chosen(Cache("caches/a"), "blocks.2.hook_out", "train", [0, 9])
    """
    name, end, wanted = cache.resolve(hook), 0, list(numbers)
    for shard in cache.shards(split):
        start, end = end, end + shard["contexts"]
        rows = [number - start for number in wanted if start <= number < end]
        if not rows:
            continue
        with cache._open(shard) as file:
            for row in rows:
                part = slice(row, row + 1)
                keys = ("tokens", "documents")
                tokens, documents = (file.get_slice(key)[part].long() for key in keys)
                acts = Stored.read(file, name, part).float()
                yield Contexts(tokens, acts, documents, cache._mask(file, tokens, part))
    if wanted and not 0 <= wanted[0] <= wanted[-1] < end:
        raise UsageError(f"{cache.path} has {split} contexts 0 to {end - 1}, not {wanted[-1]}")
