"""A Source: an SAE's error and its two parts, which fill an activation cache that `saelab train`
reads like any other.

Shapes: C contexts, T positions, N tokens, D width.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saelab.activations.cache import Cache
from saelab.activations.source import Piece, Progress
from saelab.analysis.dark_matter.decomposition import Map, split, targets
from saelab.analysis.dark_matter.linear import Sums, solve
from saelab.sae import SAE

PARTS = ("error", "error.linear", "error.nonlinear")


def write_errors(
    sae: SAE,
    cache: Cache,
    out: Path | str,
    n_tokens: int = 500_000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write (or resume, or find finished) a cache of x - x_hat and of its parts in folder `out`;
    returns the folder.

    Its hooks are HOOK.error, HOOK.error.linear and HOOK.error.nonlinear for the SAE's hook; text,
    splits and shards are those of `cache`; the linear map is fitted on at most n_tokens of its
    training tokens. progress(positions done). Raises UsageError if `out` holds anything else, or
    for too few tokens.
    """
    return Cache.write(out, Errors(sae, cache, n_tokens, seed), progress).path


class Errors:
    """An SAE's error over a cache, and its parts, as a Source."""

    def __init__(self, sae: SAE, cache: Cache, n_tokens: int, seed: int) -> None:
        self.sae, self.cache, self.hook = sae, cache, cache.resolve(sae.origin.hook)
        entry = cache.plan.hooks[self.hook] | {"aliases": [], "part_of": self.hook}
        self.plan = replace(
            cache.plan,
            hooks={f"{self.hook}.{part}": entry for part in PARTS},
            gradients=False,
            made_with=f"sae {_digest(sae)}, linear map of {n_tokens} tokens, seed {seed}",
        )
        self.names = cache.document_names()
        self.notes: dict[str, Any] = {}
        self.n_tokens, self.seed = n_tokens, seed
        self.map: Map | None = None

    def pieces(self) -> Iterator[Piece]:
        """The contexts of the cache."""
        return self.cache.pieces()

    @torch.no_grad()
    def acts(self, piece: Piece) -> Iterator[dict[str, Tensor]]:
        """error, linear and nonlinear [C, T, D]; position 0 is filled like any other."""
        if self.map is None:
            self.map = _fit(self.sae, self.cache, self.hook, self.n_tokens, self.seed)
        for acts_CTD in self.cache.take(self.hook, piece.numbers):
            x_ND = acts_CTD.to(self.sae.W_enc).flatten(0, 1)
            error_ND = x_ND - self.sae(x_ND)
            linear_ND = self.map.error(x_ND)
            parts = (error_ND, linear_ND, error_ND - linear_ND)
            named = zip(self.plan.hooks, parts, strict=True)
            yield {name: part.view_as(acts_CTD) for name, part in named}


def _digest(sae: SAE) -> str:
    """SHA-256 over the SAE's parameters."""
    digest = hashlib.sha256()
    for name, tensor in sorted(sae.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def _fit(sae: SAE, cache: Cache, hook: str, n_tokens: int, seed: int) -> Map:
    """The error's linear map, from shuffled training tokens."""
    available = min(n_tokens, cache.n_tokens("train"))
    size = min(8192, available)
    stream = cache.batches(hook, size, seed)
    sums = Sums(sae.d_model, sae.d_model + 1, sae.W_enc.device)
    for _ in range(available // size):
        x_ND = next(stream).to(sae.W_enc)
        sums.add(x_ND, targets(x_ND - sae(x_ND)))
    return split(solve(sums))
