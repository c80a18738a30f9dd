"""The report of an attention SAE: what kinds its layer's heads are, which of them write each
feature, and from where.

Shapes: H heads, F features, G features that fire, P places, O documents, R resamples.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelab.activations import Cache
from saelab.analysis import frozen
from saelab.analysis.attention import attribution, kinds, polysemanticity, tracing, writers
from saelab.errors import UsageError
from saelab.models import name_of
from saelab.sae import SAE
from saelab.statistics import Estimate, over_documents, weights

FEATURES = 5000  # listed at most, those that fire most often
RANKED = 1000  # of them enter the agreement of decoder and contributions, those that fire in
SPREAD = 20  # documents or more: each of them then fires in every resample
SOURCES = 3  # tokens of a feature, listed
TRACED, PARTS = 10, 5  # features split over a residual SAE's, parts listed of each
LAYER = re.compile(r"blocks\.(\d+)\.attn\.")
Progress = Callable[[str], None]


def report(
    model: Any,
    sae: SAE,
    cache: Cache,
    n_tokens: int,
    residual: SAE | None = None,
    seed: int = 0,
    progress: Progress = lambda what: None,
) -> dict[str, Any]:
    """Everything `saelab circuits --heads` prints, as plain values.

    n_tokens: of held-out text, in whole contexts. residual: an SAE of an earlier place, over whose
    features the strongest firings are split. Raises UsageError for an SAE that does not stand on
    concatenated heads.

    >>> report(model, sae, cache, 20_000)["heads"][5]["called"]
    ['induction']
    """
    hook, n_heads = cache.resolve(sae.origin.hook), model.cfg.n_heads
    layer = LAYER.match(hook)
    if layer is None or sae.transcoder or len(cache.plan.hooks[hook]["shape"]) != 2:
        raise UsageError(
            f"the SAE stands at {hook}, which is no place of heads: train one on "
            "blocks.N.attn.hook_z, all heads' outputs side by side"
        )
    progress("kinds of heads")
    part = min(kinds.PART, (model.cfg.n_ctx - 1) // 2)
    tokens = kinds.sequences(model, kinds.SEQUENCES, part, seed)
    repeated, unrepeated = (kinds.patterns(model, each_NT, int(layer[1])) for each_NT in tokens)
    measured = kinds.measure(repeated, unrepeated, part, seed)
    lengths = [length for length in kinds.PREFIXES if length < part]
    prefix_KNH = kinds.by_prefix(model, int(layer[1]), lengths, kinds.SEQUENCES, seed, part)
    progress("who writes what")
    texts = writers.contexts(model, sae, cache, n_tokens)
    written = writers.write(sae, texts, n_heads, model.cfg.d_vocab, seed)
    progress("what heads are about")
    features, heads_G = _features(model, sae, written, n_heads, seed)
    return {
        "model": name_of(model),
        "hook": hook,
        "n_features": sae.n_features,
        "n_firings": int(written.n_pairs_F.sum()),
        "n_documents": written.heads.shape[0],
        "sequences": {
            "n": kinds.SEQUENCES,
            "part": part,
            "clear": kinds.CLEAR,
            "prefixes": lengths,
        },
        "heads": _heads(measured, prefix_KNH, heads_G, _about(sae, cache, n_tokens, seed), seed),
        "places": dict(zip(writers.PLACES, written.even_P.tolist(), strict=True)),
        "features": features,
        "agreement": _agreement(sae, written, n_heads, seed).as_dict(),
        "traced": _traced(model, sae, residual, cache, written) if residual else [],
    }


def _about(sae: SAE, cache: Cache, n_tokens: int, seed: int) -> list[Any]:
    """The heads' themes; nothing where too few features fire for it."""
    try:
        (rows,) = polysemanticity.of_model([sae], cache, n_tokens, seed).values()
    except UsageError:
        return []
    return rows


def _heads(
    measured: list[kinds.Measured],
    prefix_KNH: Tensor,
    heads_G: Tensor,
    about: list[Any],
    seed: int,
) -> list[dict]:
    rows, weights_RN = [], weights(prefix_KNH.shape[1], seed)
    for one in measured:
        themes: dict[str, Any] = {"themes": None, "top_features": [], "alike": None}
        if about:
            of_it = about[one.head]
            bounds = [of_it.null_low, of_it.null_high]
            themes = {"themes": of_it.themes, "themes_of_chance": bounds, "alike": of_it.alike}
            themes["top_features"] = of_it.features.tolist()
        shares = {name: share.as_dict() for name, share in one.shares.items()}
        of_it_KN = prefix_KNH[:, :, one.head]
        by_prefix = [kinds.mean(share_N, weights_RN).as_dict() for share_N in of_it_KN]
        n_written = int((heads_G == one.head).sum())
        fields = {"head": one.head, "called": one.called, "kinds": shares, "by_prefix": by_prefix}
        rows.append({**fields, "n_written": n_written, **themes})
    return rows


def _features(
    model: Any, sae: SAE, written: writers.Written, n_heads: int, seed: int
) -> tuple[list[dict[str, Any]], Tensor]:
    """(a row for each feature that fires, most often first; the head that writes most of each)."""
    features_G, heads_G, sums_OG2 = writers.leading(written, n_heads)
    decoder_FH = attribution.head_shares(sae, n_heads).cpu()
    permuted_FH = written.permuted_FH / written.permuted_FH.sum(1, keepdim=True)
    null = float(permuted_FH[features_G].max(1).values.mean())
    order = written.n_pairs_F[features_G].argsort(descending=True, stable=True)[:FEATURES]
    total_FH = np.asarray(written.heads.sum(0)).reshape(-1, n_heads)
    rows = []
    for at in order.tolist():
        feature = int(features_G[at])
        share = _share(sums_OG2[:, at], null, seed)
        places_P = written.places_FP[feature] / written.places_FP[feature].sum()
        named = list(writers.PLACES)[int((places_P - written.even_P).argmax())]
        rows.append(
            {
                "feature": feature,
                "firings": int(written.n_pairs_F[feature]),
                "head": int(heads_G[at]),
                "share": share.as_dict(),
                "by_head": (total_FH[feature] / total_FH[feature].sum()).tolist(),
                "decoder": decoder_FH[feature].tolist(),
                "places": dict(zip(writers.PLACES, places_P.tolist(), strict=True)),
                "from": named,
                "sources": _sources(model, written, feature),
            }
        )
    return rows, heads_G


def _share(sums_O2: np.ndarray, null: float, seed: int) -> Estimate:
    """Over the documents in which the feature fires: elsewhere there is nothing to share out."""
    there_O2 = sums_O2[sums_O2[:, 1] > 0]
    weights_RO = weights(len(there_O2), seed)
    return over_documents(there_O2, lambda s: s[..., 0] / s[..., 1], weights_RO, null)


def _sources(model: Any, written: writers.Written, feature: int) -> list[str]:
    """The tokens that the feature's strongest sources most often are."""
    row = written.sources[[feature]].tocoo()
    order = np.argsort(-row.data, kind="stable")[:SOURCES]
    return [model.tokenizer.decode([int(row.col[at])]) for at in order if row.data[at] > 0]


def _agreement(sae: SAE, written: writers.Written, n_heads: int, seed: int) -> Estimate:
    """Spearman's rank correlation of decoder shares with shares of what is written, over features
    and heads; null: the same for features that are permuted."""
    from scipy.stats import rankdata

    spread_FH = (written.heads > 0).sum(0).reshape(-1, n_heads)
    spread_F = torch.from_numpy(np.asarray(spread_FH).max(1))
    most = written.n_pairs_F.argsort(descending=True, stable=True)[:RANKED]
    most = most[spread_F[most] >= min(SPREAD, int(spread_F.max()))]
    decoder_GH = attribution.head_shares(sae, n_heads).cpu()[most].numpy()
    columns = (most.numpy()[:, None] * n_heads + np.arange(n_heads)).ravel()
    other_G = np.random.default_rng(seed).permutation(len(most))

    def against(ranks_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        def correlation(sums: np.ndarray) -> np.ndarray:
            by_head = sums.reshape(*sums.shape[:-1], -1, n_heads)
            total = by_head.sum(-1, keepdims=True)
            share = np.divide(by_head, total, out=np.zeros_like(by_head), where=total > 0)
            ranks = rankdata(share.reshape(sums.shape), axis=-1)
            ranks = ranks - ranks.mean(-1, keepdims=True)
            mine = ranks_N - ranks_N.mean()
            lengths = np.linalg.norm(ranks, axis=-1) * np.linalg.norm(mine)
            return (ranks * mine).sum(-1) / lengths

        return correlation

    sums_OM = written.heads[:, columns].toarray()
    null = float(against(rankdata(decoder_GH[other_G]))(sums_OM.sum(0)))
    weights_RO = weights(len(sums_OM), seed)
    return over_documents(sums_OM, against(rankdata(decoder_GH)), weights_RO, null)


def _traced(
    model: Any, sae: SAE, residual: SAE, cache: Cache, written: writers.Written
) -> list[dict[str, Any]]:
    """The strongest firing, in the first context, of the features that fire most often, split over
    the residual SAE's features; what it loses without each, where the model may answer."""
    rows, wanted = [], written.n_pairs_F.argsort(descending=True, stable=True)[:TRACED].tolist()
    one = next(iter(writers.contexts(model, sae, cache, 1)))
    held = frozen.freeze(model, one.tokens[None].to(model.cfg.device))
    free = held._replace(held={})
    words = [model.tokenizer.decode([token]) for token in one.tokens.tolist()]
    for feature in wanted:
        mine_N = one.code.features == feature
        if not mine_N.any():
            continue
        at = int(torch.where(mine_N, one.code.values, -torch.inf).argmax())
        position, value = int(one.code.tokens[at]), float(one.code.values[at])
        found = attribution.by_residual_feature(model, held, sae, residual, feature, position)
        largest = found.first(PARTS)
        lost_M = tracing.lost(model, free, sae, residual, largest, feature, position)
        columns = (largest.positions, largest.features, largest.values, lost_M)
        parts = [
            {
                "position": place,
                "token": words[place],
                "feature": number,
                "value": part,
                "lost": lost,
            }
            for place, number, part, lost in zip(
                *(column.tolist() for column in columns), strict=True
            )
        ]
        rest = {"errors": float(found.errors.sum()), "bias": found.bias}
        where = {"feature": feature, "position": position, "token": words[position]}
        rows.append({**where, "value": value, "parts": parts, **rest})
    return rows
