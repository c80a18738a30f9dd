"""Label-free dictionaries beside an SAE: fitted to the training tokens of its cache, at its L0."""

from collections.abc import Callable, Iterable

from saelab.activations import Cache
from saelab.dictionaries import methods
from saelab.errors import UsageError
from saelab.evaluation.controls import measured_l0
from saelab.sae import SAE

# Features at most, in widths of the activation: what the others' fits cost rises steeply with them.
WIDTHS = {"semi-nmf": 1, "k-svd": 2, "mod": 2, "bsc": 1, "tsc": 1, "gsc": 1}


def rivals(
    sae: SAE,
    cache: Cache,
    seed: int = 0,
    names: Iterable[str] = tuple(methods.METHODS),
    progress: Callable[[str], object] | None = None,
) -> dict[str, SAE]:
    """A dictionary of each method, by its name and the pairs that it spends per token (those of
    the SAE, measured; k-means one, the probabilistic ones up to four).

    F is the SAE's, or less: the activation's width D of complete dictionaries and of those fitted
    by non-negative values or expectation maximisation, 2 D of K-SVD and MOD. Raises UsageError for
    a transcoder, whose targets they do not explain.

    >>> evaluate(sae, cache, model, rivals=rivals(sae, cache, names=["pca", "k-svd"]))
    """
    if sae.transcoder:
        raise UsageError("label-free dictionaries are rivals of SAEs: a transcoder has none")
    k = max(1, round(measured_l0(sae, cache, seed)))
    others: dict[str, SAE] = {}
    for name in names:
        if progress:
            progress(name)
        made = of(name, sae, cache, k, seed)
        others[f"{name} k={made.sparsify.k}"] = made  # type: ignore[union-attr]
    return others


def of(name: str, sae: SAE, cache: Cache, k: int, seed: int) -> SAE:
    """One rival of an SAE, at its place."""
    width = sae.d_model
    most = min(sae.n_features, WIDTHS.get(name, sae.n_features) * width)
    size = methods.n_features(name, max(most, k), width)
    n_tokens = min(methods.METHODS[name].tokens, cache.n_tokens())
    x_ND = next(cache.batches(sae.origin.hook, n_tokens, seed)).to(sae.W_dec)
    fitted = methods.fit(name, x_ND, size, min(k, size), seed)
    made = SAE.of(fitted.weights, fitted.sparsify, encoder=fitted.encoder)
    made.origin = sae.origin
    return made
