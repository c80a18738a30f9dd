"""Building the feature index: one pass of a cache through a frozen SAE into one SQLite file.

Shapes: C contexts of T positions, D width, F features.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saelab import digests, matching
from saelab.activations import Cache
from saelab.code import Code
from saelab.errors import FailedRun, UsageError
from saelab.features import directions, schema, writer
from saelab.features.collect import Collector, Contexts, Statistics
from saelab.files import write_atomic
from saelab.sae import SAE
from saelab.spelling import pieces

N_NEIGHBOURS = 8
N_LOGITS = 10


def build(
    sae: SAE,
    cache: Cache,
    hook: str,
    path: Path | str,
    *,
    tokenizer: Any,
    model: Any = None,
    others: Sequence[tuple[str, SAE]] = (),
    n_tokens: int | None = None,
    split: str = "train",
    seed: int = 0,
    digest: str | None = None,
    progress: Callable[[int], object] | None = None,
) -> dict:
    """Write the index of a frozen SAE to `path`, atomically; returns its summary (the index's
    `meta`).

    cache: read once, as whole contexts of `hook` and `split`. n_tokens: stop after that many (None:
    all). model: gives promoted and suppressed tokens where the decoder writes to the residual
    stream. others: (name, SAE) pairs to look every feature up in. digest: the SHA-256 of the SAE's
    weights, by which the index says of which SAE it is. progress: called with the number of tokens
    counted so far. Raises UsageError for an SAE of another width, FailedRun for
    activations that are not finite.
    """
    sae = sae.frozen()
    words = pieces(tokenizer, max(len(tokenizer), 0 if model is None else model.W_U.shape[1]))
    _check_widths(sae, others)
    collector = Collector(sae.n_features, len(words), seed)
    contexts = _read(sae, cache.contexts(hook, split), collector, n_tokens, progress)
    statistics = collector.result()
    summary = _summary(sae, hook, split, seed, statistics, contexts.tokens) | {"sae": digest}
    map_DV = (
        directions.output_map(model)
        if model is not None
        and not getattr(model, "lacking", ())
        and directions.writes_to_residual(sae.origin.target or hook)
        else None
    )

    def write(temporary: Path) -> None:
        with contextlib.closing(sqlite3.connect(temporary)) as connection:
            writer.create(connection)
            writer.write_statistics(connection, statistics, contexts, words, cache.document_names())
            summary["others"] = _write_directions(
                connection, sae, others, map_DV, statistics.fired > 0
            )
            writer.write_meta(connection, **summary)
            connection.executescript(schema.INDEXES)
            connection.commit()
        digests.seal(temporary)

    write_atomic(Path(path), write)
    return summary


def _check_widths(sae: SAE, others: Sequence[tuple[str, SAE]]) -> None:
    for name, other in others:
        if other.W_dec.shape[1] != sae.W_dec.shape[1]:
            raise UsageError(
                f"{name} has decoder rows of width {other.W_dec.shape[1]}, this SAE of "
                f"{sae.W_dec.shape[1]}"
            )


def _summary(
    sae: SAE, hook: str, split: str, seed: int, statistics: Statistics, tokens_CT: np.ndarray
) -> dict:
    n_contexts, context = tokens_CT.shape
    facts = {
        "origin": sae.origin.to_dict(),
        "hook": hook,
        "split": split,
        "seed": seed,
        "signed": sae.sparsify.signed,
    }
    sizes = {
        "n_tokens": statistics.n_tokens,
        "n_contexts": n_contexts,
        "n_features": sae.n_features,
        "d_model": sae.d_model,
    }
    return {**facts, **sizes, "context": context, "dead": int((statistics.fired == 0).sum())}


def _read(
    sae: SAE,
    chunks: Iterator,
    collector: Collector,
    n_tokens: int | None,
    progress: Callable | None,
) -> Contexts:
    """Code every chunk and hand it to the collector."""
    kept: list[Contexts] = []
    for chunk in chunks:
        acts_CTD = chunk.acts
        if acts_CTD.shape[-1] != sae.d_model:
            raise UsageError(
                f"activations at this hook have width {acts_CTD.shape[-1]}, the SAE reads "
                f"{sae.d_model}"
            )
        if n_tokens is not None:
            n_left = n_tokens - collector.n_tokens
            chunk = chunk.part(slice(_reaching(chunk.counted.sum(1).numpy(), n_left)))
        if not len(chunk.tokens):
            break
        code = _encode(sae, chunk.acts, collector.n_contexts)
        tokens_CT, counted_CT = chunk.tokens.numpy(), chunk.counted.numpy()
        collector.add(code, tokens_CT, counted_CT)
        owners_CT = chunk.documents.numpy().astype(np.int32)
        kept.append(Contexts(tokens_CT.astype(np.int32), owners_CT, counted_CT))
        if progress is not None:
            progress(collector.n_tokens)
    if not kept:
        raise UsageError("the cache has no contexts to index in this split")
    return Contexts(*(np.concatenate(column) for column in zip(*kept, strict=True)))


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
def _write_directions(
    connection: sqlite3.Connection,
    sae: SAE,
    others: Sequence,
    map_DV: torch.Tensor | None,
    alive_F: np.ndarray,
) -> list[dict]:
    """Neighbours, output tokens and matches; returns one summary row per other SAE."""
    W_FD, signed = sae.W_dec.detach(), sae.sparsify.signed
    index, cosine = directions.nearest(W_FD, W_FD, N_NEIGHBOURS, signed=signed, skip_self=True)
    writer.write_ranked(connection, "neighbour", index.numpy(), cosine.numpy())
    if map_DV is not None:
        index, logits = directions.output_tokens(W_FD, map_DV, N_LOGITS)
        writer.write_ranked(
            connection, "logit", index.flatten(1).numpy(), logits.flatten(1).numpy()
        )
    return [
        _write_nearest(connection, number, sae, name, other, alive_F)
        for number, (name, other) in enumerate(others)
    ]


def _write_nearest(
    connection: sqlite3.Connection,
    number: int,
    sae: SAE,
    name: str,
    other: SAE,
    alive_F: np.ndarray,
) -> dict:
    """Each feature's nearest row of another SAE, and its partner in a one-to-one matching, where
    the two are small enough for one; the summary of that SAE: the share of live features that it
    found, and their median cosine with the nearest row."""
    W_FD, W_GD, signed = sae.W_dec.detach(), other.W_dec.detach(), sae.sparsify.signed
    index_F1, cosine_F1 = directions.nearest(W_FD, W_GD, 1, signed=signed)
    nearest_F, cosine_F = index_F1[:, 0], cosine_F1[:, 0]
    partners: list = [None] * len(W_FD)
    partner_F = torch.full((len(W_FD),), torch.nan)
    matched = len(W_FD) * len(W_GD) <= matching.MOST
    if matched:
        pairs = matching.match(W_FD, W_GD, signed=signed)
        partner_F[pairs.rows] = pairs.cosines
        for feature, partner in zip(pairs.rows.tolist(), pairs.columns.tolist(), strict=True):
            partners[feature] = partner
    columns = (nearest_F.tolist(), cosine_F.tolist(), partners, partner_F.tolist())
    connection.executemany(
        "insert into nearest values (?, ?, ?, ?, ?, ?)",
        ((feature, number, *row) for feature, row in enumerate(zip(*columns, strict=True))),
    )
    size_A = (cosine_F.abs() if signed else cosine_F).numpy()[alive_F]
    pair_A = (partner_F.abs() if signed else partner_F).numpy()[alive_F]
    return {
        "name": name,
        "n_features": other.n_features,
        "share": float(np.mean(pair_A > matching.FOUND)) if matched and len(pair_A) else None,
        "median": float(np.median(size_A)) if len(size_A) else 0.0,
        "threshold": matching.FOUND,
        "null": directions.null_cosine(W_FD.shape[1], other.n_features, signed=signed),
    }
