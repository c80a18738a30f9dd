"""Building the feature index: one pass of a cache through a frozen SAE into one SQLite file.

Shapes: C contexts of T positions, D width, F features, P poles.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saelab import digests
from saelab.activations import Cache
from saelab.code import Code
from saelab.errors import FailedRun, UsageError
from saelab.features import columns, writer
from saelab.features.collect import Collector, Statistics
from saelab.features.lists import Lists
from saelab.features.pictures import Patches, Pictures
from saelab.features.schema import HOME, LISTS
from saelab.features.shown import shown
from saelab.features.strongest import strongest
from saelab.features.subject import Others, Subject
from saelab.files import write_atomic
from saelab.origin import part_of
from saelab.sae import SAE
from saelab.sparsify import word
from saelab.spelling import pieces

TOGETHER = 16  # contexts


def build(
    sae: SAE,
    cache: Cache,
    hook: str,
    path: Path | str,
    *,
    tokenizer: Any = None,
    model: Any = None,
    others: Others = (),
    n_tokens: int | None = None,
    split: str = "train",
    seed: int = 0,
    plane: bool = False,
    pictures: Pictures | None = None,
    digest: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict:
    """Write the index of an SAE, in inference form, to `path`, atomically; returns its summary (the
    index's `meta`).

    cache: read once, as whole contexts of `hook` and `split`. tokenizer: what the tokens read
    (None, as for one's own arrays: no columns of tokens). n_tokens: stop after that many (None:
    all). model: gives promoted and suppressed tokens where the decoder writes to the residual
    stream. others: (name, SAE) pairs to look every feature up in. plane: whether to lay the
    directions out in a plane, which takes longer than all the rest. pictures: of contexts that are
    images. digest: the SHA-256 of the
    SAE's weights, by which the index says of which SAE it is. progress: called with the number of
    tokens counted so far. What grows with the corpus lies on disk beside `path` meanwhile. Raises
    UsageError for an SAE of another width, FailedRun for activations that are not finite.

    >>> build(sae, Cache("caches/a"), "blocks.2.hook_out", "features.db", tokenizer=tokenizer)
    """
    _check_widths(sae, others)
    words = None
    if tokenizer is not None:
        words = pieces(tokenizer, max(len(tokenizer), 0 if model is None else model.W_U.shape[1]))
    subject = Subject(sae.frozen(), cache, hook, split, words, model, others, seed, plane, pictures)
    summary: dict[str, Any] = {}

    def write(temporary: Path) -> None:
        statistics, patches = _read(subject, n_tokens, progress, temporary.parent)
        summary.update(_summary(subject, statistics), sae=digest)
        with contextlib.closing(sqlite3.connect(temporary)) as connection:
            writer.create(connection)
            _write(connection, subject, statistics, summary, temporary.parent)
            if patches is not None:
                patches.write(connection, statistics.contexts.documents[:, 0], summary)
            writer.write_meta(connection, **summary)
            connection.commit()
        digests.seal(temporary)

    write_atomic(Path(path), write)
    return summary


def _check_widths(sae: SAE, others: Others) -> None:
    for name, other in others:
        if other.W_dec.shape[1] != sae.W_dec.shape[1]:
            raise UsageError(
                f"{name} has decoder rows of width {other.W_dec.shape[1]}, this SAE of "
                f"{sae.W_dec.shape[1]}"
            )


def _summary(subject: Subject, statistics: Statistics) -> dict:
    sae, origin = subject.sae, subject.sae.origin
    n_contexts, context = statistics.contexts.tokens.shape
    trained = f"{origin.sparsify} k={origin.k}" if origin.sparsify else word(sae.sparsify)
    facts = {
        "origin": origin.to_dict(),
        "kind": part_of(origin.more) or ("transcoder" if sae.transcoder else "SAE"),
        "signed": sae.sparsify.signed,
        "sparsifier": trained.removesuffix(" k=None"),
        "hook": subject.hook,
        "target": origin.target or subject.hook,
        "split": subject.split,
        "seed": subject.seed,
        "tokens": statistics.tokens is not None,
    }
    sizes = {
        "n_tokens": statistics.n_tokens,
        "n_contexts": n_contexts,
        "n_features": sae.n_features,
        "d_model": sae.d_model,
        "context": context,
        "cofiring_tokens": statistics.cofiring.n_tokens,
    }
    fired_F = statistics.fired.reshape(sae.n_features, -1).sum(1)
    return {**facts, **sizes, "unseen": int((fired_F == 0).sum())}


def _read(
    subject: Subject, n_tokens: int | None, progress: Callable | None, folder: Path
) -> tuple[Statistics, Patches | None]:
    """Code every chunk and hand it to a collector; of images, what fires on their patches too."""
    sae, n_words = subject.sae, len(subject.words or ())
    collector = Collector(sae.n_features, n_words, folder, sae.sparsify.signed, subject.seed)
    patches = Patches(subject.pictures, folder) if subject.pictures else None
    for chunk in _chunks(subject, n_tokens, collector):
        code = _encode(sae, chunk.acts, collector.n_contexts).to("cpu")
        length = chunk.tokens.shape[1]
        columns_CT = (chunk.tokens.numpy(), chunk.documents.numpy(), chunk.counted.numpy())
        # A few contexts at a time: what is made of a chunk's pairs on the way is many times them.
        for first in range(0, len(chunk.tokens), TOGETHER):
            last = min(first + TOGETHER, len(chunk.tokens))
            rows = code.rows(first * length, last * length)
            collector.add(rows, *(column_CT[first:last] for column_CT in columns_CT))
            if patches is not None:
                patches.add(rows, columns_CT[2][first:last])
        if progress is not None:
            progress(collector.n_tokens)
    if not collector.n_contexts:
        raise UsageError("the cache has no contexts to index in this split")
    return collector.result(), patches


def _chunks(subject: Subject, n_tokens: int | None, collector: Collector) -> Iterator:
    """The chunks of whole contexts that it takes to have n_tokens."""
    for chunk in subject.cache.contexts(subject.hook, subject.split):
        width = chunk.acts.shape[-1]
        if width != subject.sae.d_model:
            raise UsageError(
                f"activations at this hook have width {width}, the SAE reads {subject.sae.d_model}"
            )
        if n_tokens is not None:
            n_left = n_tokens - collector.n_tokens
            chunk = chunk.part(slice(_reaching(chunk.counted.sum(1).numpy(), n_left)))
        if not len(chunk.tokens):
            return
        yield chunk


def _reaching(counts_C: np.ndarray, n_tokens: int) -> int:
    """How many contexts of so many tokens each it takes to have n_tokens; all where none do."""
    return 0 if n_tokens <= 0 else int(np.searchsorted(counts_C.cumsum(), n_tokens)) + 1


@torch.no_grad()
def _encode(sae: SAE, acts_CTD: torch.Tensor, first_context: int) -> Code:
    try:
        return sae.encode(acts_CTD.to(sae.W_enc))
    except FloatingPointError as error:
        raise FailedRun(
            f"contexts {first_context} to {first_context + len(acts_CTD) - 1} of the cache: {error}"
        ) from None


@torch.no_grad()
def _write(
    connection: sqlite3.Connection,
    subject: Subject,
    statistics: Statistics,
    summary: dict,
    folder: Path,
) -> None:
    """All tables but `meta`; what they hold goes into the summary too. Lists lie in the folder
    until they are written, and what they are made of is dropped on the way: of many features both
    would not fit into memory at once."""
    sae, each = subject.sae, 1 + subject.sae.sparsify.signed
    words, n_words = subject.words, len(subject.words or ())
    lists = {
        name: Lists(folder / f"{name}.list", kind, sae.n_features) for name, kind in LISTS.items()
    }
    homes, promoted = (
        Lists(folder / f"{name}.list", HOME, n_words) for name in ("homes", "promoted")
    )
    blocks = shown(statistics.top, statistics.sampled, statistics.contexts)
    placed_S = writer.add_examples(blocks, each, lists["examples"], lists["pairs"])
    n_examples_F = np.bincount(placed_S["place"]["feature"], minlength=sae.n_features)
    names = subject.cache.document_names()
    writer.write_contexts(connection, placed_S, statistics.contexts, words, names)
    del placed_S
    for records, feature_N in statistics.cofiring.strongest():
        lists["cofiring"].add(records, feature_N)
    writer.add_histograms(statistics.histogram.blocks(), each, lists["histogram"])
    columns.directions_of(subject, lists, promoted, summary)
    by_token = None
    if statistics.tokens is not None:
        sums = (statistics.tokens.blocks(), statistics.absolute_sum, statistics.seen)
        by_token = strongest(*sums, each, lists["tokens"])
        homes.add(by_token.homes, by_token.home_token)
        writer.write_tokens(connection, words or (), statistics.seen, homes, promoted)
    writer.write_features(connection, sae.n_features, lists)
    arrays = columns.numbers(statistics, by_token, sae.n_features)
    arrays["examples"] = n_examples_F.astype(np.int32)
    arrays |= columns.in_others(subject, arrays["fired"] > 0, summary)
    arrays |= columns.on_a_map(subject, arrays["fired"] > 0, summary)
    writer.write_arrays(connection, **arrays)
