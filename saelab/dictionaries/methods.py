"""Every way to get a dictionary without training an SAE, as a row of one table.

Shapes: N tokens, F features, D width.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.dictionaries import linear, truncated_em
from saelab.dictionaries.encoders import Encoder, Nearest, NonNegative, Posterior, Pursued
from saelab.dictionaries.ksvd import ksvd
from saelab.dictionaries.nonnegative import semi_nmf
from saelab.errors import UsageError
from saelab.sparsify import Choice

CANDIDATES, ACTIVE = 6, 4  # of truncated expectation maximisation, where k allows as many


class Fitted(NamedTuple):
    """What an SAE is made of: SAE.of(fitted.weights, fitted.sparsify, encoder=fitted.encoder)."""

    weights: dict[str, Tensor]
    """W_enc [F, D], b_enc [F], W_dec [F, D], b_dec [D]: the tokens' mean"""
    sparsify: Choice
    """how many pairs a token has at most, and whether they are signed"""
    encoder: Encoder | None
    """what codes tokens; None: scores, as an SAE has them"""


class Asked(NamedTuple):
    """What a method is fitted to."""

    x: Tensor
    """[N, D] centred"""
    n_features: int
    """F"""
    k: int
    """pairs per token"""
    seed: int
    """of everything random"""


class Method(NamedTuple):
    """A row of METHODS."""

    title: str
    """as papers write it"""
    tokens: int
    """that it is fitted to, at most"""
    complete: bool
    """whether it has as many features as activations have numbers, whatever F is asked"""
    fit: Callable[[Asked], tuple[Tensor, Tensor, Choice, Encoder | None]]
    """W_enc, W_dec, sparsifier, encoder"""


def _scored(rows: Callable[[Asked], Tensor | tuple[Tensor, Tensor]]) -> Callable:
    def fit(asked: Asked) -> tuple[Tensor, Tensor, Choice, None]:
        made = rows(asked)
        W_enc, W_dec = made if isinstance(made, tuple) else (made, made.clone())
        return W_enc, W_dec, Choice(min(asked.k, len(W_dec)), signed=True), None

    return fit


def _k_means(asked: Asked) -> tuple[Tensor, Tensor, Choice, Encoder]:
    from sklearn.cluster import MiniBatchKMeans

    options: dict[str, Any] = {"n_init": 1, "random_state": asked.seed, "batch_size": 4096}
    model = MiniBatchKMeans(asked.n_features, **options).fit(asked.x.cpu().numpy())
    W_FD = torch.from_numpy(model.cluster_centers_).to(asked.x)
    return W_FD, W_FD.clone(), Choice(1), Nearest()


def _semi_nmf(asked: Asked) -> tuple[Tensor, Tensor, Choice, Encoder]:
    W_FD = semi_nmf(asked.x, asked.n_features, seed=asked.seed).W
    return W_FD, W_FD.clone(), Choice(asked.k), NonNegative()


def _pursued(update: str) -> Callable:
    def fit(asked: Asked) -> tuple[Tensor, Tensor, Choice, Encoder]:
        x, n_features, k, seed = asked
        W_FD = ksvd(x, n_features, k, n_rounds=10, seed=seed, update=update).W
        return W_FD, W_FD.clone(), Choice(k, signed=True), Pursued()

    return fit


def _probable(family: str) -> Callable:
    def fit(asked: Asked) -> tuple[Tensor, Tensor, Choice, Encoder]:
        sizes = {"candidates": CANDIDATES, "active": min(asked.k, ACTIVE)}
        schedule = truncated_em.Schedule(rounds=30, starts=1)
        learned = truncated_em.learn(
            asked.x, family, asked.n_features, **sizes, schedule=schedule, seed=asked.seed
        )
        W_FD, signed = learned.W.to(asked.x), family != "bsc"
        form = Choice(min(sizes["active"], asked.n_features), signed=signed)
        return W_FD, W_FD.clone(), form, Posterior(learned.prior)

    return fit


METHODS = {
    "pca": Method("PCA", 100_000, True, _scored(lambda a: linear.pca(a.x))),
    "ica": Method("ICA", 20_000, True, _scored(lambda a: linear.ica(a.x, a.seed))),
    "random": Method(
        "random rows", 100_000, False, _scored(lambda a: linear.random_rows(*a[:2], a.seed))
    ),
    "neurons": Method("neurons", 100_000, True, _scored(lambda a: linear.neurons(a.x))),
    "orthogonal": Method(
        "orthogonal", 100_000, True, _scored(lambda a: linear.orthogonal(a.x, a.seed))
    ),
    "k-means": Method("k-means", 50_000, False, _k_means),
    "semi-nmf": Method("semi-NMF", 10_000, False, _semi_nmf),
    "k-svd": Method("K-SVD", 10_000, False, _pursued("k-svd")),
    "mod": Method("MOD", 10_000, False, _pursued("mod")),
    "bsc": Method("BSC", 5_000, False, _probable("bsc")),
    "tsc": Method("TSC", 5_000, False, _probable("tsc")),
    "gsc": Method("GSC", 5_000, False, _probable("gsc")),
}


def n_features(name: str, wanted: int, d_model: int) -> int:
    """F of a method's dictionary: d_model of a complete one, else as many as are wanted."""
    return d_model if METHODS[name].complete else wanted


@torch.no_grad()
def fit(name: str, x: Tensor, n_features: int, k: int, seed: int = 0) -> Fitted:
    """Fit a method of METHODS to the first of the tokens x [N, D], as many as its row says.

    n_features: F, of complete ones left out of account. k: pairs per token; k-means has one, and
    the probabilistic ones as many as are likely. Raises UsageError for an unknown method, for fewer
    than two tokens, or fewer than F for k-means, and for k outside 1 to F.

    >>> fitted = fit("k-svd", x_ND, n_features=512, k=16)
    >>> sae = SAE.of(fitted.weights, fitted.sparsify, encoder=fitted.encoder)
    """
    if name not in METHODS:
        raise UsageError(f"no dictionary {name!r}; there are {', '.join(METHODS)}")
    method, x = METHODS[name], x[: METHODS[name].tokens].float()
    size = x.shape[1] if method.complete else n_features
    if not 1 <= k <= size:
        raise UsageError(f"k={k} for a dictionary of {size} features: choose 1 to {size}")
    least = size if name == "k-means" else 2
    if len(x) < least:
        raise UsageError(f"{len(x)} tokens are too few for {name}: give {least} or more")
    mean_D = x.mean(0)
    W_enc, W_dec, form, encoder = method.fit(Asked(x - mean_D, size, k, seed))
    weights = {"W_enc": W_enc, "b_enc": x.new_zeros(len(W_enc)), "W_dec": W_dec, "b_dec": mean_D}
    return Fitted({name: part.contiguous() for name, part in weights.items()}, form, encoder)
