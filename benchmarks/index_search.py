"""Whether a run's index ranks features by selectivity x coverage as an exhaustive recount does, and
how far an order by totals is from it.

    python benchmarks/index_search.py runs/demo --out benchmarks/results/index_search.json

Every token that was seen at least 200 times is searched, whole; the first three features and their
scores are compared with those of all (feature, token) pairs, recounted in float64 from the codes.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from saelab import opening
from saelab.features import build
from saelab.features.reader import FeatureIndex
from saelab.files import write_json

SEEN = 200


def recount(sae, cache, index: FeatureIndex) -> tuple[np.ndarray, np.ndarray]:
    """([F, V] sums of |value|, [F, V] firings) over the contexts that the index read."""
    n_words = len(index.vocabulary.texts)
    total_FV = np.zeros((sae.n_features, n_words))
    fired_FV = np.zeros((sae.n_features, n_words), np.int32)
    n_left = index.summary["n_contexts"]
    for chunk in cache.contexts(index.summary["hook"], index.summary["split"]):
        chunk = chunk.part(slice(n_left))
        n_left -= len(chunk.tokens)
        with torch.no_grad():
            code = sae.encode(chunk.acts)
        kept = chunk.counted.flatten()[code.tokens] & (code.values != 0)
        token_N = chunk.tokens.flatten()[code.tokens[kept]].numpy()
        feature_N, value_N = code.features[kept].numpy(), code.values[kept].double().numpy()
        np.add.at(total_FV, (feature_N, token_N), np.abs(value_N))
        np.add.at(fired_FV, (feature_N, token_N), 1)
        if not n_left:
            break
    return total_FV, fired_FV


def compare(index: FeatureIndex, total_FV: np.ndarray, fired_FV: np.ndarray) -> dict:
    """Over the frequent tokens: for how many the first three agree, the largest difference of a
    score, and at which place an order by totals has the best feature."""
    seen_V = np.array(index.vocabulary.seen)
    share_FV = total_FV / np.maximum(total_FV.sum(1, keepdims=True), 1e-300)
    agreed, largest, places, times = 0, 0.0, [], []
    frequent = np.flatnonzero(seen_V >= SEEN)
    for token in frequent.tolist():
        score_F = share_FV[:, token] * fired_FV[:, token] / seen_V[token]
        expected = np.lexsort((np.arange(len(score_F)), -score_F))[:3]
        text = index.vocabulary.text(token)
        started = time.perf_counter()
        quoted = text.replace('"', '\\"')
        hits = index.search(f'"{quoted}"', ["tokens"], whole=True)
        times.append(1000 * (time.perf_counter() - started))
        first = [hit.feature for hit in hits[:3]]
        agreed += first == expected.tolist()
        gaps = [abs(hit.score - score_F[hit.feature]) for hit in hits[:3]]
        largest = max(largest, *map(float, gaps))
        places.append(int((total_FV[:, token] > total_FV[expected[0], token]).sum()) + 1)
    return {
        "tokens": len(frequent),
        "first_three_agree": agreed,
        "largest_difference_of_a_score": largest,
        "place_of_the_best_by_totals": {
            "median": float(np.median(places)),
            "most": max(places),
            "first": int((np.array(places) == 1).sum()),
        },
        "search_ms": {"median": float(np.median(times)), "p95": float(np.percentile(times, 95))},
    }


def main() -> None:
    """Index, recount, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tokens", type=int, default=500_000)
    parser.add_argument("--path", type=Path, default=Path("features.db"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    _, sae, cache, model = opening.open(args.run)
    sae = sae.frozen()
    options = {"tokenizer": model.tokenizer, "model": model, "n_tokens": args.tokens}
    build.build(sae, cache, sae.origin.hook, args.path, **options)
    with FeatureIndex(args.path) as index:
        result = {
            "n_features": sae.n_features,
            "n_tokens": index.summary["n_tokens"],
            "sparsifier": index.summary["sparsifier"],
            "dtype": "float32, recounted in float64",
            **compare(index, *recount(sae, cache, index)),
        }
    print(result)
    if args.out:
        write_json(args.out, result)


if __name__ == "__main__":
    main()
