"""Sparse probing: how well a few latents tell what is known of a token.

Gurnee et al. 2023 (arXiv 2305.01610); the ranking of SAEBench (Karvonen et al. 2025, arXiv
2503.09532), without pooling over tokens. Shapes: N examples, F latents, K chosen.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from saelab.code import Code
from saelab.evaluation.labelled import Labelled
from saelab.sae import SAE
from saelab.statistics import Estimate, over_documents, weights

KS = (1, 2, 5)
LEAST = 20  # examples of either kind, in either split, from which a label is probed
PER_CLASS = 2000  # examples of either kind, at most
ROWS = 4096  # tokens coded at a time

Inputs = Any  # [N, F]: a numpy array or a scipy.sparse matrix of rows


class Probe(NamedTuple):
    """Logistic regression on a few latents."""

    features: np.ndarray
    """[K]: the latents used, best first"""
    accuracy: Estimate
    """share of balanced test examples told right, interval over documents"""


class Examples(NamedTuple):
    """What a probe is fitted to."""

    inputs: Inputs
    """[N, F]"""
    labels: np.ndarray
    """[N] bool"""
    groups: np.ndarray
    """[N] the documents they come from"""


def rank(train: Examples) -> np.ndarray:
    """[F]: latents by falling |mean over positives - mean over negatives| on the training examples;
    ties to the lower number."""
    on, off = (
        np.asarray(train.inputs[train.labels == side].mean(0)).ravel() for side in (True, False)
    )
    return np.argsort(-np.abs(on - off), kind="stable")


def probe(train: Examples, test: Examples, k: int | None, seed: int = 0) -> Probe:
    """Logistic regression (L2, C = 1) on the best k latents (None: on all), each divided by its
    root mean square in training."""
    from sklearn.linear_model import LogisticRegression

    chosen = np.arange(train.inputs.shape[1]) if k is None else rank(train)[:k]
    x_train, x_test = (_columns(part.inputs, chosen) for part in (train, test))
    scale_K = np.sqrt(np.square(x_train).mean(0))
    scale_K[scale_K == 0] = 1
    fitted = LogisticRegression(max_iter=1000, random_state=seed).fit(
        x_train / scale_K, train.labels
    )
    right_N = fitted.predict(x_test / scale_K) == test.labels
    return Probe(chosen, share(right_N, test.groups, seed))


def _columns(inputs: Inputs, chosen: np.ndarray) -> np.ndarray:
    part = inputs[:, chosen]
    return (part.toarray() if scipy.sparse.issparse(part) else part).astype(np.float64)


def share(right_N: np.ndarray, groups_N: np.ndarray, seed: int = 0) -> Estimate:
    """The share that is true, with its 95% interval over their documents."""
    sums_GM = by_document(right_N, groups_N)
    return over_documents(sums_GM, share_of, weights(len(sums_GM), seed))


def by_document(right_N: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
    """[G, 2]: how many of each document's are true, and how many there are."""
    _, inverse = np.unique(groups_N, return_inverse=True)
    return np.stack([np.bincount(inverse, right_N), np.bincount(inverse)], axis=1).astype(float)


def share_of(sums_M: np.ndarray) -> np.ndarray:
    """The share of sums [..., 2] as `by_document` gives them."""
    return sums_M[..., 0] / np.maximum(sums_M[..., 1], 1)


def balanced(labels_N: np.ndarray, most: int, seed: int = 0) -> np.ndarray:
    """Rows, ascending: as many positives as negatives, at most `most` of each, so that chance is
    one half."""
    rng = np.random.default_rng(seed)
    sides = [np.flatnonzero(labels_N == side) for side in (True, False)]
    n = min(most, *map(len, sides))
    return np.sort(np.concatenate([rng.permutation(side)[:n] for side in sides]))


@torch.no_grad()
def latents(sae: SAE, x_ND: Tensor) -> Inputs:
    """The code of x as sparse rows [N, F]."""
    return scipy.sparse.vstack(
        [_csr(sae.encode(x_BD.to(sae.W_enc))) for x_BD in x_ND.split(ROWS)], format="csr"
    )


def _csr(code: Code) -> scipy.sparse.csr_array:
    code = code.to("cpu")
    parts = (part.numpy() for part in (code.values.double(), code.features, code.starts))
    return scipy.sparse.csr_array(tuple(parts), shape=(code.n_tokens, code.n_features))


def table(
    saes: dict[str, SAE], train: Labelled, test: Labelled, ks: tuple[int, ...] = KS, seed: int = 0
) -> list[dict]:
    """Rows {"label", "dictionary", "k"} with the fields of an Estimate: one per label, dictionary
    and k.

    Dictionaries: each of `saes`, `neurons` (the activation's own coordinates) and, with k null,
    `dense` (all of them: what a linear probe can know at most). Null: the same probe on shuffled
    labels, in training and in test. Labels with fewer than LEAST examples of either kind are left
    out.
    """
    inputs: dict[str, tuple[Inputs, Inputs]] = {
        name: (latents(sae, train.x), latents(sae, test.x)) for name, sae in saes.items()
    }
    inputs["neurons"] = (train.x.numpy(), test.x.numpy())
    rows = []
    for label in train.labels:
        picks = [balanced(part.labels[label], PER_CLASS, seed) for part in (train, test)]
        if min(map(len, picks)) < 2 * LEAST:
            continue
        for name, pair in inputs.items():
            known = [
                (part.labels[label][pick], part.groups[pick])
                for part, pick in zip((train, test), picks, strict=True)
            ]
            splits = [
                Examples(x[pick], *rest) for x, pick, rest in zip(pair, picks, known, strict=True)
            ]
            rows += [{"label": label, "dictionary": name, **_row(splits, k, seed)} for k in ks]
            if name == "neurons":
                rows.append({"label": label, "dictionary": "dense", **_row(splits, None, seed)})
    return rows


def _row(splits: list[Examples], k: int | None, seed: int) -> dict:
    rng = np.random.default_rng(seed)
    train, test = splits
    accuracy = probe(train, test, k, seed).accuracy
    train, test = (part._replace(labels=rng.permutation(part.labels)) for part in splits)
    null = probe(train, test, k, seed).accuracy.value
    return {"k": k, **accuracy._replace(null=null).as_dict()}
