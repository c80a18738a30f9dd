"""Probes of one's own labels from a few latents: logistic regression whose strength is chosen by
cross-validation, beside what needs no SAE.

Features are ranked as sae-probes ranks them (Kantamneni et al. 2025, arXiv 2502.16681), which the
reliability audit (2605.18229) found the most reliable metric of SAEBench. Shapes: N examples, F
features, K chosen, G texts, S different scores, R resamples.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from saelab.evaluation import probing
from saelab.evaluation.labelled_texts import in_first, too_few
from saelab.evaluation.probing import Examples, Inputs
from saelab.statistics import Estimate, over_documents, weights
from saelab.statistics.bootstrap import total

KS = (1, 2, 5)
CS = tuple(np.logspace(-4, 2, 7))  # of which the one with the least log loss in training is taken
FOLDS = 4
PER_CLASS = 1000  # examples of either kind, at most, in either half
VARIES = 1e-5  # of the first principal component's size: float32 activations round below it


class Fitted(NamedTuple):
    """A probe, and what it says of its test examples."""

    features: np.ndarray
    """[K] best first"""
    c: float
    """inverse strength of its L2 penalty"""
    logit_N: np.ndarray
    """[N] log odds of the label"""


def rank(train: Examples) -> np.ndarray:
    """[F]: features by falling |mean over positives - mean over negatives|, each divided by its
    mean size where it is not 0; ties to the lower number."""
    size_F, on_F = (
        np.asarray(part.sum(0)).ravel() for part in (abs(train.inputs), train.inputs != 0)
    )
    sides = (train.inputs[train.labels == side].mean(0) for side in (True, False))
    on, off = (np.asarray(side).ravel() for side in sides)
    scale_F = np.divide(size_F, on_F, out=np.ones_like(on), where=on_F > 0)
    return np.argsort(-np.abs(on - off) / scale_F, kind="stable")


def fit(
    train: Examples, test: Examples, k: int | None, seed: int = 0, c: float | None = None
) -> Fitted:
    """Logistic regression (L2, scikit-learn's lbfgs) on the best k features, standardised in
    training (None: on all). c: given, else chosen from CS by log loss over FOLDS folds that share
    no text.

    >>> fit(train, test, k=5).c
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    chosen = np.arange(train.inputs.shape[1]) if k is None else rank(train)[:k]
    x_train, x_test = (_columns(part.inputs, chosen) for part in (train, test))
    scaler = StandardScaler().fit(x_train)
    x_train, x_test = scaler.transform(x_train), scaler.transform(x_test)
    c = _strength(train._replace(inputs=x_train), seed) if c is None else c
    fitted = LogisticRegression(C=c, **_options()).fit(x_train, train.labels)
    return Fitted(chosen, c, fitted.decision_function(x_test))


def _options() -> dict[str, Any]:
    return {"max_iter": 2000, "tol": 1e-6}


def _columns(inputs: Inputs, chosen: np.ndarray) -> np.ndarray:
    part = inputs[:, chosen]
    return part.toarray() if scipy.sparse.issparse(part) else part


def _strength(train: Examples, seed: int) -> float:
    """The C of CS with the least mean log loss over the folds; 1 where no fold has both labels."""
    from sklearn.linear_model import LogisticRegressionCV

    splits = list(folds(train, seed))
    if not splits:
        return 1.0
    options: dict[str, Any] = {
        "Cs": CS,
        "scoring": "neg_log_loss",
        "cv": splits,
        "l1_ratios": (0.0,),
    }
    options |= {"use_legacy_attributes": False, **_options()}
    search = LogisticRegressionCV(**options)
    return float(search.fit(train.inputs, train.labels).C_)


def folds(train: Examples, seed: int) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Rows to fit on and rows to score, no text in both, both labels in each."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = [len(np.unique(train.groups[train.labels == side])) for side in (True, False)]
    n = min(FOLDS, *groups)
    if n < 2:
        return
    split = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
    for rows in split.split(train.inputs, train.labels, train.groups):
        if all(len(np.unique(train.labels[part])) == 2 for part in rows):
            yield rows


def scores(fitted: Fitted, test: Examples, seed: int = 0) -> dict[str, Estimate]:
    """Accuracy, AUC and log loss in nats, each with its 95% interval over texts."""
    sums = _sums(fitted.logit_N, test)
    weights_RG = weights(len(np.unique(test.groups)), seed)
    return {
        name: over_documents(sums, statistic, weights_RG) for name, statistic in STATISTICS.items()
    }


def _sums(logit_N: np.ndarray, test: Examples) -> dict[str, Any]:
    """By text: examples, those told right, their losses, and [G, S] positives and negatives at each
    different score, ascending."""
    _, group_N = np.unique(test.groups, return_inverse=True)
    _, place_N = np.unique(logit_N, return_inverse=True)
    shape = (group_N.max() + 1, place_N.max() + 1)
    sides = {}
    for name, side in (("above", True), ("below", False)):
        on = test.labels == side
        ones = (np.ones(int(on.sum())), (group_N[on], place_N[on]))
        sides[name] = scipy.sparse.csr_array(ones, shape)
    losses_N = np.logaddexp(0, np.where(test.labels, -logit_N, logit_N))
    return {
        "n": np.bincount(group_N).astype(float),
        "right": np.bincount(group_N, (logit_N > 0) == test.labels),
        "loss": np.bincount(group_N, losses_N),
        **sides,
    }


def _auc(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """Share of pairs of a positive and a negative in which the positive scores higher, ties half;
    NaN without either."""
    above, below = sums["above"], sums["below"]
    lower = below.cumsum(-1) - below / 2
    pairs = above.sum(-1) * below.sum(-1)
    with np.errstate(invalid="ignore"):
        return (above * lower).sum(-1) / pairs


STATISTICS = {
    "accuracy": lambda sums: sums["right"] / sums["n"],
    "auc": _auc,
    "loss": lambda sums: sums["loss"] / sums["n"],
}


def table(
    inputs: Mapping[str, Inputs], labels: Mapping[str, np.ndarray], groups: np.ndarray, seed: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows {"label", "dictionary", "k", "c", "features", "n_train", "n_test", "accuracy", "auc",
    "loss"}, one per label, dictionary and k; and of labels that are left out the reason.

    inputs: what each dictionary makes of the examples, [N, F] each, `neurons` among them. Beside
    them stand `pca`, the principal components of the activations in training, and, with k null,
    `dense`, all neurons. Features are chosen on one half of the texts, scores are of the other,
    both with as many positives as negatives. Null: the same probe, at the same strength, on
    shuffled labels.
    """
    first_N, rows, left_out = in_first(groups, seed), [], {}
    for label, on_N in labels.items():
        if reason := too_few(on_N, first_N):
            left_out[label] = reason
            continue
        picked = [
            part[probing.balanced(on_N[part], PER_CLASS, seed)]
            for part in (np.flatnonzero(first_N), np.flatnonzero(~first_N))
        ]
        of_label = dict(inputs) | {"pca": _components(inputs["neurons"], picked[0])}
        asked: list[tuple[str, Inputs, int | None]] = [
            (name, each, k) for name, each in of_label.items() for k in KS
        ]
        asked.append(("dense", inputs["neurons"], None))
        for name, each, k in asked:
            train, test = (Examples(each[rows], on_N[rows], groups[rows]) for rows in picked)
            about = {"label": label, "dictionary": name, "k": k}
            rows.append(about | _row(train, test, k, seed))
    return rows, left_out


def _components(x_ND: np.ndarray, train: np.ndarray) -> np.ndarray:
    """[N, L]: the activations along the principal components of the training examples, but those
    along which these do not vary: standardised, rounding would be a feature."""
    mean_D = x_ND[train].mean(0)
    _, size_L, basis_LD = np.linalg.svd(x_ND[train] - mean_D, full_matrices=False)
    return (x_ND - mean_D) @ basis_LD[size_L >= VARIES * size_L[0]].T


def _row(train: Examples, test: Examples, k: int | None, seed: int) -> dict[str, Any]:
    fitted = fit(train, test, k, seed)
    rng = np.random.default_rng(seed)
    mixed, asked = (part._replace(labels=rng.permutation(part.labels)) for part in (train, test))
    by_chance = _totals(fit(mixed, asked, k, seed, fitted.c), asked)
    stated = scores(fitted, test, seed)
    return {
        "c": fitted.c,
        "features": [] if k is None else fitted.features.tolist(),
        "n_train": len(train.labels),
        "n_test": len(test.labels),
        **{name: each._replace(null=by_chance[name]).as_dict() for name, each in stated.items()},
    }


def _totals(fitted: Fitted, test: Examples) -> dict[str, float]:
    whole = total(_sums(fitted.logit_N, test))
    return {name: float(statistic(whole)) for name, statistic in STATISTICS.items()}
