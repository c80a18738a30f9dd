"""What an index says of every feature beyond its examples: numbers, directions, other SAEs.

Shapes: F features, G features of another SAE, P poles, K kept per feature, V vocabulary. Arrays are
numpy.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saelab import joint, matching
from saelab.features import directions
from saelab.features.collect import Statistics
from saelab.features.groups import best
from saelab.features.interest import interest
from saelab.features.lists import Lists
from saelab.features.schema import (
    HOME,
    N_FEATURES,
    N_LOGITS,
    N_NEIGHBOURS,
)
from saelab.features.strongest import Strongest
from saelab.features.subject import Subject
from saelab.origin import part_of
from saelab.sae import SAE


def numbers(
    statistics: Statistics, by_token: Strongest | None, n_features: int
) -> dict[str, NDArray]:
    """One number, or a row of them, per feature: `fired`, `density`, `mean` of |value|, `max` (with
    its sign), `positive` (share of firings), `interest`; of tokens, `entropy` in bits and `listed`
    [F, N_LISTED], the strongest by total (-1: none)."""
    fired_FE = statistics.fired.reshape(n_features, -1)
    sum_FE = statistics.absolute_sum.reshape(n_features, -1)
    max_FE = statistics.max.reshape(n_features, -1)
    fired_F = fired_FE.sum(1)
    mean_F = sum_FE.sum(1) / np.maximum(fired_F, 1)
    negative_F = max_FE.argmax(1) == 1
    arrays = {
        "fired": fired_F,
        "density": fired_F / max(statistics.n_tokens, 1),
        "mean": mean_F,
        "max": np.where(negative_F, -1, 1) * max_FE.max(1),
        "positive": fired_FE[:, 0] / np.maximum(fired_F, 1),
    }
    entropy_F = None
    if by_token is not None:
        entropy_F = _entropy(by_token.entropy.reshape(n_features, -1), sum_FE)
        arrays |= {"entropy": entropy_F, "listed": by_token.listed}
    return arrays | {"interest": interest(fired_F, mean_F, statistics.n_tokens, entropy_F)}


def _entropy(entropy_FE: NDArray, sum_FE: NDArray) -> NDArray:
    """[F] bits: of a feature's poles together, taken as different tokens."""
    share_FE = sum_FE / np.maximum(sum_FE.sum(1, keepdims=True), 1e-300)
    between_FE = -share_FE * np.log2(np.maximum(share_FE, 1e-300))
    return (share_FE * entropy_FE + between_FE).sum(1)


def directions_of(
    subject: Subject, lists: dict[str, Lists], promoted: Lists, summary: dict[str, Any]
) -> None:
    """Neighbours; output tokens, and by token who promotes it; shares of heads, or of the hooks
    that a crosscoder, or one layer of a cross-layer transcoder, writes to. What there is goes into
    the summary: `outputs`, `heads`, `hooks`."""
    sae = subject.sae
    W_FD, signed = sae.W_dec.detach(), sae.sparsify.signed
    index_FK, cosine_FK = directions.nearest(
        W_FD, W_FD, N_NEIGHBOURS, signed=signed, skip_self=True
    )
    _add(lists["neighbours"], (index_FK >= 0).numpy(), feature=index_FK, cosine=cosine_FK)
    hooks = joint.parts(sae.origin.target or subject.hook)
    across = bool(part_of(sae.origin.more))
    map_DV = _output_map(subject, hooks[0] if across else joint.joined(hooks))
    if map_DV is not None:
        # What one layer of a cross-layer transcoder writes to all outputs adds up in the residual.
        written_FD = W_FD.unflatten(1, (len(hooks), -1)).sum(1) if across else W_FD
        ids_F2K, logit_F2K = directions.output_tokens(written_FD, map_DV, N_LOGITS)
        ids_FK, logit_FK = ids_F2K.flatten(1), logit_F2K.flatten(1)
        _add(lists["logits"], np.ones(ids_FK.shape, bool), token=ids_FK, value=logit_FK)
        _add_promoted(promoted, ids_F2K.numpy(), logit_F2K.numpy(), signed)
    n_heads = _heads(subject)
    if n_heads:
        share_FH = directions.head_shares(W_FD, n_heads).cpu().numpy()
        lists["heads"].add(share_FH.reshape(-1), np.arange(len(W_FD)).repeat(n_heads))
    if len(hooks) > 1:
        equal = [W_FD.shape[1] // len(hooks)] * len(hooks)
        widths = equal if across else subject.cache.widths(joint.joined(hooks))
        share_FH = directions.shares(W_FD, widths).cpu().numpy()
        lists["heads"].add(share_FH.reshape(-1), np.arange(len(W_FD)).repeat(len(hooks)))
        summary.update(hooks=hooks)
    summary.update(outputs=map_DV is not None, heads=n_heads)


def _add(lists: Lists, kept_FK: NDArray, **fields_FK: torch.Tensor) -> None:
    """Add the records of those fields that are kept, a row for each feature."""
    columns = {name: field_FK.numpy()[kept_FK] for name, field_FK in fields_FK.items()}
    lists.add(_records(lists.spool.dtype, **columns), kept_FK.nonzero()[0])


def _records(dtype: np.dtype, **fields: NDArray) -> NDArray:
    """Records of those fields, of their shape."""
    records = np.empty(next(iter(fields.values())).shape, dtype)
    for name, column in fields.items():
        records[name] = column
    return records


def _output_map(subject: Subject, target: str) -> torch.Tensor | None:
    """[D, V], where the decoder writes to the residual stream of a whole model."""
    model = subject.model
    if model is None or getattr(model, "lacking", ()) or subject.words is None:
        return None
    return directions.output_map(model) if directions.writes_to_residual(target) else None


def _add_promoted(promoted: Lists, ids_F2K: NDArray, logit_F2K: NDArray, signed: bool) -> None:
    """Add by token the features among whose N_LOGITS most promoted it is (of a signed feature's
    negative values: most suppressed); selectivity: its logit over the feature's largest, coverage:
    over that of any such feature."""
    n_sides = 1 + signed
    value_N = np.abs(logit_F2K[:, :n_sides]).reshape(-1)
    token_N = ids_F2K[:, :n_sides].reshape(-1)
    largest = np.abs(logit_F2K[:, :n_sides]).max(2, keepdims=True)
    shape = logit_F2K[:, :n_sides].shape
    feature_N, side_N, _ = (at.reshape(-1) for at in np.indices(shape, np.int32))
    largest_V = np.zeros(len(promoted.count_G), np.float32)
    np.maximum.at(largest_V, token_N, value_N)
    kind = {"feature": feature_N, "sign": 1 - 2 * side_N}
    selectivity_N = value_N / np.maximum(np.broadcast_to(largest, shape).reshape(-1), 1e-30)
    coverage_N = value_N / np.maximum(largest_V[token_N], 1e-30)
    homes = _records(HOME, **kind, selectivity=selectivity_N, coverage=coverage_N)
    kept = best(token_N, selectivity_N * coverage_N, N_FEATURES)
    promoted.add(homes[kept], token_N[kept])


def _heads(subject: Subject) -> int | None:
    """How many heads' parts the decoder writes to; None unless it is attention's z."""
    plan = getattr(subject.cache, "plan", None)
    target = subject.sae.origin.target or subject.hook
    for name, entry in (plan.hooks if plan else {}).items():
        if target == name or target in entry["aliases"]:
            return entry["shape"][0] if len(entry["shape"]) == 2 else None
    return None


def in_others(subject: Subject, alive_F: NDArray, summary: dict) -> dict[str, NDArray]:
    """Every feature's nearest row in each other SAE, and its partner in a one-to-one matching where
    the two are small enough for one (-1, nan: none); `others` goes into the summary."""
    arrays: dict[str, NDArray] = {}
    summary["others"] = []
    for number, (name, other) in enumerate(subject.others):
        columns = _in_other(subject.sae, other)
        arrays |= {f"{key}/{number}": column for key, column in columns.items()}
        summary["others"].append(_said_of(name, subject.sae, other, columns, alive_F))
    return arrays


def _in_other(sae: SAE, other: SAE) -> dict[str, NDArray]:
    W_FD, W_GD, signed = sae.W_dec.detach(), other.W_dec.detach(), sae.sparsify.signed
    index_F1, cosine_F1 = directions.nearest(W_FD, W_GD, 1, signed=signed)
    partner_F = np.full(len(W_FD), -1, np.int32)
    pair_F = np.full(len(W_FD), np.nan, np.float32)
    if len(W_FD) * len(W_GD) <= matching.MOST:
        pairs = matching.match(W_FD, W_GD, signed=signed)
        partner_F[pairs.rows.numpy()] = pairs.columns.numpy()
        pair_F[pairs.rows.numpy()] = pairs.cosines.numpy()
    return {
        "nearest": index_F1[:, 0].numpy().astype(np.int32),
        "cosine": cosine_F1[:, 0].numpy(),
        "partner": partner_F,
        "partner_cosine": pair_F,
    }


def _said_of(name: str, sae: SAE, other: SAE, columns: dict, alive_F: NDArray) -> dict[str, Any]:
    """The summary of another SAE: the share of the live features that it found, and their median
    cosine with the nearest row."""
    signed = sae.sparsify.signed
    size_A, pair_A = (
        np.abs(columns[key][alive_F]) if signed else columns[key][alive_F]
        for key in ("cosine", "partner_cosine")
    )
    matched = sae.n_features * other.n_features <= matching.MOST and len(pair_A)
    return {
        "name": name,
        "n_features": other.n_features,
        "share": float(np.mean(pair_A > matching.FOUND)) if matched else None,
        "median": float(np.median(size_A)) if len(size_A) else 0.0,
        "threshold": matching.FOUND,
        "null": directions.null_cosine(sae.W_dec.shape[1], other.n_features, signed=signed),
    }


def on_a_map(subject: Subject, alive_F: NDArray, summary: dict) -> dict[str, NDArray]:
    """The features' places in a plane, if they are wanted; its method goes into the summary as
    `map`."""
    summary["map"] = None
    if not subject.plane:
        return {}
    alive = torch.from_numpy(alive_F)
    summary["map"], places_F2 = directions.plane(subject.sae.W_dec.detach(), alive, subject.seed)
    return {"map": places_F2.numpy()}
