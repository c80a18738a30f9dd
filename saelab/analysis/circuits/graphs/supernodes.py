"""Groups of a graph's features that fire on the same tokens of a corpus.

Two features are alike by the Jaccard index of the tokens they fire on, n_both / n_either; groups
are made by complete linkage, so that every two features of a group have at least LEAST. A supernode
is what a group has at one position of the prompt, two features or more. Chance: the same after each
feature's firings were moved along the corpus by a number of tokens of its own, which keeps how
often and in which runs it fires. Shapes: B tokens, F features of a dictionary, S features, M nodes.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from saelab.activations import Cache
from saelab.analysis.circuits.graphs.graph import FEATURE, Graph
from saelab.analysis.circuits.graphs.influence import Core
from saelab.sae import SAE

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

LEAST = 0.3


class Firings(NamedTuple):
    """Which features fire on which tokens of a corpus."""

    by_hook: Mapping[str, "csc_matrix"]
    """[B, F] by the hook that a dictionary explains, 1 where a feature fires"""
    n_tokens: int
    """B"""


class Groups(NamedTuple):
    """A graph's supernodes."""

    nodes: list[list[int]]
    """each two nodes or more of one position"""
    share: float
    """of the kept feature nodes that are in a supernode"""
    null: float
    """the same of shifted firings"""


@torch.no_grad()
def firings(saes: Mapping[str, SAE], cache: Cache, n_tokens: int) -> Firings:
    """What fires on the first n_tokens training tokens of a cache that holds what all of them read.
    Raises UsageError for a hook that the cache lacks.

    >>> firings({"blocks.0.mlp.hook_out": transcoder}, cache, 50_000).n_tokens
    """
    from scipy.sparse import csc_matrix

    by_hook, n_read = {}, 0
    for target, sae in saes.items():
        tokens, features, n_read = [], [], 0
        for chunk in cache.counted(sae.origin.hook, "train", n_tokens):
            code = sae.encode(chunk.x.to(sae.W_enc)).to("cpu")
            fires = code.values != 0
            tokens.append(code.tokens[fires] + n_read)
            features.append(code.features[fires])
            n_read += len(chunk.x)
        at_N, feature_N = torch.cat(tokens).numpy(), torch.cat(features).numpy()
        shape = n_read, sae.n_features
        by_hook[target] = csc_matrix((np.ones(len(at_N), np.int32), (at_N, feature_N)), shape)
    return Firings(by_hook, n_read)


def jaccard(fired_BS: "csc_matrix") -> NDArray[np.float64]:
    """[S, S]: tokens on which both fire per token on which either does; 0 for two that never do."""
    both_SS = (fired_BS.T @ fired_BS).toarray().astype(np.float64)
    n_S = both_SS.diagonal()
    either_SS = n_S[:, None] + n_S - both_SS
    return both_SS / np.maximum(either_SS, 1)


def shifted(fired_BS: "csc_matrix", seed: int) -> "csc_matrix":
    """Each feature's firings moved round the corpus by a random number of tokens of its own."""
    from scipy.sparse import csc_matrix

    n_tokens, n_features = fired_BS.shape  # type: ignore[misc] # as typed, a matrix may have none
    move_S = np.random.default_rng(seed).integers(n_tokens, size=n_features)
    column_N = np.repeat(np.arange(n_features), np.diff(fired_BS.indptr))
    at_N = (fired_BS.indices + move_S[column_N]) % n_tokens
    return csc_matrix((fired_BS.data, (at_N, column_N)), fired_BS.shape)


def clusters(alike_SS: NDArray[np.float64], least: float = LEAST) -> NDArray[np.int64]:
    """[S] the number of the group that each is in: every two of a group are at least so alike."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(alike_SS) < 2:
        return np.zeros(len(alike_SS), np.int64)
    apart = squareform(1 - alike_SS, checks=False)
    return fcluster(linkage(apart, "complete"), 1 - least, "distance")


def supernodes(graph: Graph, core: Core, fired: Firings, seed: int = 0) -> Groups:
    """The supernodes of what pruning keeps.

    >>> supernodes(drawn, influence.prune(drawn), firings(saes, cache, 50_000)).nodes
    """
    from scipy.sparse import csc_matrix, hstack

    nodes = graph.nodes
    kept = (core.nodes & (nodes.kind == FEATURE)).nonzero().flatten().tolist()
    by_place = defaultdict(dict)
    for node in kept:
        by_place[int(nodes.place[node])].setdefault(int(nodes.number[node]), None)
    keys = [(place, number) for place, numbers in by_place.items() for number in numbers]
    if not keys:
        return Groups([], 0.0, 0.0)
    columns = [fired.by_hook[graph.places[p]][:, list(numbers)] for p, numbers in by_place.items()]
    fired_BS = csc_matrix(hstack(columns))
    found = _at_positions(graph, kept, keys, clusters(jaccard(fired_BS)))
    chance = _at_positions(graph, kept, keys, clusters(jaccard(shifted(fired_BS, seed))))
    share, null = (sum(map(len, groups)) / len(kept) for groups in (found, chance))
    return Groups(found, share, null)


def _at_positions(
    graph: Graph, kept: Sequence[int], keys: Sequence[tuple[int, int]], group_S: NDArray[np.int64]
) -> list[list[int]]:
    """The nodes of each group at each position where it has two or more."""
    group_of = dict(zip(keys, group_S.tolist(), strict=True))
    together = defaultdict(list)
    for node in kept:
        key = int(graph.nodes.place[node]), int(graph.nodes.number[node])
        together[int(graph.nodes.position[node]), group_of[key]].append(node)
    return [nodes for _, nodes in sorted(together.items()) if len(nodes) > 1]
