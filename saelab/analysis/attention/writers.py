"""Which heads write each feature of an attention SAE, and from where, on whole contexts of text.

A pre-activation is a sum over heads and source positions (`attribution`); here the sizes of its
parts are added up over all tokens on which the feature fires. Source: Kissane et al. 2024 (direct
feature attribution). Shapes: C contexts, T positions, S source positions, H heads, E width of a
head, F features, N pairs, P places, G features that fire, O documents.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.activations import Cache
from saelab.analysis import frozen
from saelab.analysis.attention import attribution
from saelab.code import Code
from saelab.sae import SAE
from saelab.statistics.draws import stream

# Where a source stands; of several that hold the first.
PLACES = {
    "first position": "position 0 of the context",
    "current token": "the token itself",
    "previous token": "the token before",
    "same token": "an earlier token that is the same",
    "after the same token": "the token behind an earlier one that is the same",
    "elsewhere": "any other earlier position",
}


class Context(NamedTuple):
    """One context, with what a layer's heads make of it."""

    tokens: Tensor
    """[T]"""
    documents: Tensor
    """[T] number of the document of each"""
    pattern: Tensor
    """[H, T, S]"""
    v: Tensor
    """[S, H, E]"""
    code: Code
    """of its T tokens, those that do not count without pairs"""


class Written(NamedTuple):
    """Sizes |contribution| added up, by document where intervals come from them."""

    n_pairs_F: Tensor
    """firings"""
    heads: Any
    """[O, F H] scipy sparse: by head"""
    permuted_FH: Tensor
    """the same, over all documents, for the encoder row of another feature on each one's tokens"""
    places_FP: Tensor
    """by place of the source"""
    even_P: Tensor
    """the shares of places if all sources brought the same, mean over firings"""
    sources: Any
    """[F, V] scipy sparse: what the strongest source of a firing brings, by its token"""


def contexts(model: Any, sae: SAE, cache: Cache, n_tokens: int) -> Iterable[Context]:
    """The first held-out contexts of a cache, until they hold n_tokens tokens."""
    hook, prefix = cache.resolve(sae.origin.hook), sae.origin.hook.rpartition(".attn.")[0]
    names = [hook, f"{prefix}.attn.hook_pattern", f"{prefix}.attn.hook_v"]
    n_read, device = 0, sae.W_enc.device
    for chunk in cache.contexts(hook, "held_out"):
        n_read += int(chunk.counted.sum())
        held = frozen.Frozen(chunk.tokens.to(device), {})
        with torch.no_grad():
            acts = frozen.run(model, held, {}, names)
            z_CTD, pattern_CHTS, v_CTD = (acts[name].float() for name in names)
            for row, counted_T in enumerate(chunk.counted.to(device)):
                code = sae.encode(z_CTD[row])
                code = code.where((code.values != 0) & counted_T[code.tokens])
                v_SHE = v_CTD[row].unflatten(1, (-1, model.cfg.d_head))
                parts = (chunk.tokens[row], chunk.documents[row], pattern_CHTS[row], v_SHE, code)
                yield Context(*parts)
        if n_read >= n_tokens:
            return


class _Sums:
    """What is added up over contexts."""

    def __init__(self, n_features: int, n_heads: int, seed: int) -> None:
        self.other_F = torch.randperm(n_features, generator=stream("another feature", seed))
        self.firings_F = torch.zeros(n_features)
        self.permuted_FH = torch.zeros(n_features, n_heads)
        self.places_FP = torch.zeros(n_features, len(PLACES))
        self.even_P = torch.zeros(len(PLACES))
        self.by_head: list[tuple[Tensor, Tensor, Tensor]] = []
        self.by_source: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, sae: SAE, one: Context) -> None:
        features_N, tokens_N = one.code.features, one.code.tokens.cpu()
        parts_NHS = _brought(sae, one, features_N)
        others_NHS = _brought(sae, one, self.other_F.to(features_N.device)[features_N])
        features_N = features_N.cpu()
        self.firings_F += torch.bincount(features_N, minlength=len(self.firings_F))
        self.permuted_FH.index_add_(0, features_N, others_NHS.sum(2).abs())
        place_TSP = places(one.tokens)
        sizes_NS = parts_NHS.abs().sum(1)
        place_NP = torch.einsum("ns,nsp->np", sizes_NS, place_TSP[tokens_N])
        self.places_FP.index_add_(0, features_N, place_NP)
        even_TP = place_TSP.sum(1) / place_TSP.sum((1, 2))[:, None]
        self.even_P += even_TP[tokens_N].sum(0)
        self.by_head.append((one.documents[tokens_N], features_N, parts_NHS.sum(2).abs()))
        self.by_source.append((features_N, *_strongest(one, parts_NHS.sum(1))))


@torch.no_grad()
def write(sae: SAE, among: Iterable[Context], n_heads: int, n_words: int, seed: int = 0) -> Written:
    """What heads and places bring, added up over contexts of n_words different tokens.

    >>> among = contexts(model, sae, cache, 50_000)
    >>> written = write(sae, among, model.cfg.n_heads, model.cfg.d_vocab)
    """
    sums = _Sums(sae.n_features, n_heads, seed)
    for one in among:
        sums.add(sae, one)
    documents_N, features_N, heads_NH = _joined(sums.by_head)
    column_NH = features_N[:, None] * n_heads + torch.arange(n_heads)
    row_NH = documents_N.unique(return_inverse=True)[1][:, None].expand_as(column_NH)
    n_documents = int(row_NH.max()) + 1 if len(row_NH) else 0
    heads = _sparse(heads_NH, row_NH, column_NH, (n_documents, sae.n_features * n_heads))
    features_N, word_N, value_N = _joined(sums.by_source)
    sources = _sparse(value_N, features_N, word_N, (sae.n_features, n_words))
    even_P = sums.even_P / sums.firings_F.sum()
    return Written(sums.firings_F, heads, sums.permuted_FH, sums.places_FP, even_P, sources)


def _joined(columns: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = (torch.cat(column) for column in zip(*columns, strict=True))
    return first, second, third


def _sparse(values: Tensor, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> Any:
    """A scipy table of values added up by row and column."""
    from scipy.sparse import coo_array

    place = (rows.flatten().numpy(), columns.flatten().numpy())
    return coo_array((values.flatten().double().numpy(), place), shape=shape).tocsr()


def _brought(sae: SAE, one: Context, features_N: Tensor) -> Tensor:
    """[N, H, S]: what heads and sources bring the encoder rows of features on the context's
    pairs."""
    n_heads, v_SHE = len(one.pattern), one.v
    v_SHE = v_SHE.repeat_interleave(n_heads // v_SHE.shape[1], 1)
    W_FHE = attribution.by_heads(sae.W_enc.detach(), n_heads)
    parts = attribution.brought(W_FHE, one.pattern, v_SHE, one.code.tokens, features_N)
    return parts.cpu()


def _strongest(one: Context, parts_NS: Tensor) -> tuple[Tensor, Tensor]:
    """(tokens [N], what they bring [N]): the source that adds most to each firing; one that takes
    away counts as nothing."""
    most_N = parts_NS.max(1)
    return one.tokens[most_N.indices], most_N.values.clamp_min(0)


def places(tokens_T: Tensor) -> Tensor:
    """[T, S, P]: 1 at the place that a source has of a position, 0 behind the position."""
    length = len(tokens_T)
    at_T = torch.arange(length)
    back_TS = at_T[:, None] - at_T
    same_TS = tokens_T[:, None] == tokens_T
    behind_TS = torch.zeros_like(same_TS)
    behind_TS[:, 1:] = same_TS[:, :-1]
    first_TS = (at_T == 0).expand_as(same_TS)
    rest_TS = torch.ones_like(same_TS)
    tests = [first_TS, back_TS == 0, back_TS == 1, same_TS, behind_TS, rest_TS]
    taken_TS, found = back_TS < 0, []
    for test_TS in tests:
        found.append(test_TS & ~taken_TS)
        taken_TS = taken_TS | test_TS
    return torch.stack(found, 2).float()


def leading(written: Written, n_heads: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """(features [G] that fire, the head that writes most of each [G], by document the size of what
    that head and what all of them write [O, G, 2])."""
    features_G = written.n_pairs_F.nonzero().flatten()
    total_FH = np.asarray(written.heads.sum(0)).reshape(-1, n_heads)
    head_G = total_FH[features_G.numpy()].argmax(1)
    mine = written.heads[:, features_G.numpy() * n_heads + head_G].toarray()
    every = sum(
        written.heads[:, features_G.numpy() * n_heads + head].toarray() for head in range(n_heads)
    )
    return features_G, torch.from_numpy(head_G), np.stack([mine, every], 2)
