"""One feature as an index has it. Imports no torch.

Shapes: T positions of a context.
"""

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from saelab.features import pictures, schema
from saelab.features.packing import unpack
from saelab.features.records import (
    Bin,
    CoFiring,
    Example,
    Feature,
    Logit,
    Match,
    Neighbour,
    Token,
)
from saelab.features.stored import Stored, known
from saelab.spelling import spell


def feature(stored: Stored, feature: int) -> Feature:
    """Everything about a feature but its examples. Raises UsageError for a number the SAE does
    not have."""
    names = ("tokens", "logits", "neighbours", "cofiring", "histogram", "heads")
    strong, logits, neighbours, cofiring, bars, heads = stored.lists(feature, *names)
    # The promoted tokens are stored first, then as many suppressed ones.
    pushed = [Logit(stored.vocabulary.text(token), value) for token, value in logits.tolist()]
    half = len(pushed) // 2
    hooks = stored.summary.get("hooks", [])  # whose shares lie where others have those of heads
    return Feature(
        row=stored.row(feature),
        by_total=_strongest(stored, strong, "by_total"),
        by_mean=_strongest(stored, strong, "by_mean"),
        promoted=pushed[:half],
        suppressed=pushed[half:],
        neighbours=[
            Neighbour(other, cosine, stored.listed(other)) for other, cosine in neighbours.tolist()
        ],
        cofiring=[
            CoFiring(other, both, jaccard, pmi, stored.listed(other))
            for other, both, jaccard, pmi in cofiring.tolist()
        ],
        matches=matches(stored, feature),
        histogram=_bins(bars),
        heads=[] if hooks else heads.tolist(),
        hooks=[*zip(hooks, heads.tolist(), strict=True)] if hooks else [],
    )


def _strongest(stored: Stored, strong: NDArray, by: str) -> list[Token]:
    """Those with a rank, positive ones first."""
    ranked = strong[strong[by] < schema.N_TOKENS]
    ranked = ranked[np.lexsort((ranked[by], -ranked["sign"].astype(int)))]
    strongest = []
    for sign, _, _, token, total, fired, selectivity, coverage in ranked.tolist():
        seen = stored.vocabulary.seen[token]
        counts = (total, total / max(seen, 1), fired, seen)
        text = stored.vocabulary.text(token)
        strongest.append(Token(text, sign, *counts, selectivity, coverage))
    return strongest


def matches(stored: Stored, feature: int) -> list[Match]:
    """What every other SAE that the index was built with has of a feature."""
    others = []
    for number, sae in enumerate(stored.summary["others"]):
        nearest, cosine, partner, pair = (
            stored.arrays[f"{key}/{number}"][feature].item()
            for key in ("nearest", "cosine", "partner", "partner_cosine")
        )
        pair, bar = known(pair), sae["threshold"]
        above = abs(pair or 0) > bar if sae["share"] is not None else None
        pairing = (None if partner < 0 else partner, pair, above)
        others.append(Match(sae["name"], nearest, cosine, *pairing, bar, sae["null"]))
    return others


def examples(stored: Stored, feature: int) -> list[Example]:
    """Of each sign, positive first: top contexts by falling |activation|, then those of the
    quantile bands, strongest band first."""
    records, pairs = stored.lists(feature, "examples", "pairs")
    ends = np.cumsum(records["pairs"])
    wanted = json.dumps(np.unique(records["context"]).tolist())
    sql = "select id, tokens, documents from context where id in (select value from json_each(?))"
    contexts = {row[0]: row for row in stored.ask(sql, wanted)}
    examples: list[Example] = []
    for record, end in zip(records.tolist(), ends.tolist(), strict=True):
        sign, band, context, position, value, copies, n_pairs = record
        if band == schema.MORE:
            continue
        _, ids, documents = contexts[context]
        words = spell(stored.vocabulary.pieces(unpack(ids, schema.ID).tolist()))
        dense_T = np.zeros(len(words), np.float32)
        mine = pairs[end - n_pairs : end]
        dense_T[mine["position"]] = mine["value"]
        owner = stored.document(documents, position)
        rank = _rank(examples, sign, band)
        place = (sign, band, rank, context, position, value, copies)
        picture = pictures.read(stored.ask, stored.summary, context)
        examples.append(Example(*place, words, dense_T.tolist(), owner, picture))
    return examples


def places(stored: Stored, feature: int) -> list[tuple[int, int, float]]:
    """Firings beyond the examples, whose contexts a cache still has: (context, position,
    value), strongest first; see `more.examples`."""
    (records,) = stored.lists(feature, "examples")
    records = records[records["band"] == schema.MORE]
    return [(context, position, value) for _, _, context, position, value, *_ in records.tolist()]


def _rank(examples: Sequence[Example], sign: int, band: int) -> int:
    """The place of the next example of a band, behind those there are."""
    last = examples[-1] if examples else None
    return last.rank + 1 if last and (last.sign, last.band) == (sign, band) else 0


def _bins(bars: NDArray) -> list[Bin]:
    """The occupied bins, ascending."""
    bins = []
    for number, count in bars.tolist():
        sign, step = (1, number) if number >= 0 else (-1, -1 - number)
        near, far = (
            sign * 2.0 ** (schema.LOWEST + at / schema.PER_OCTAVE) for at in (step, step + 1)
        )
        bins.append(Bin(min(near, far), max(near, far), count))
    return sorted(bins)
