"""Supernodes: features that fire together, by hand, and what chance groups."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.sparse import csc_matrix

from saelab import SAE, Threshold
from saelab.analysis.circuits.graphs import influence, supernodes
from saelab.analysis.circuits.graphs.graph import FEATURE, LOGIT, TOKEN, Graph, Nodes
from saelab.origin import Origin

HOOK = "blocks.0.mlp.hook_out"


class Chunk(NamedTuple):
    """What `Cache.counted` yields, as far as firings read it."""

    x: torch.Tensor


class Corpus:
    """A cache of one hook in two chunks."""

    def __init__(self, x_BD: torch.Tensor) -> None:
        self.chunks = [Chunk(x_BD[:5]), Chunk(x_BD[5:])]

    def counted(self, hook: str, split: str, n_tokens: int) -> list[Chunk]:
        """All of it."""
        assert (hook, split, n_tokens) == ("read", "train", 8)
        return self.chunks


def test_firings_and_jaccard_by_hand():
    sae = SAE(3, 3, Threshold(0.0), transcoder=True)
    sae.W_enc.data = torch.eye(3)
    sae.origin = Origin("read", HOOK)
    fired_BF = torch.tensor([[1, 1, 0]] * 3 + [[1, 0, 0]] + [[0, 0, 0]] * 3 + [[0, 1, 1]])
    found = supernodes.firings({HOOK: sae}, Corpus(2.0 * fired_BF - 1), 8)  # type: ignore[arg-type]
    assert found.n_tokens == 8
    np.testing.assert_array_equal(found.by_hook[HOOK].toarray(), fired_BF)
    alike_SS = supernodes.jaccard(found.by_hook[HOOK])
    np.testing.assert_allclose(alike_SS, [[1, 3 / 5, 0], [3 / 5, 1, 1 / 4], [0, 1 / 4, 1]])


def test_a_group_is_no_chain():
    alike_SS = np.array([[1, 0.9, 0.1, 0], [0.9, 1, 0.8, 0], [0.1, 0.8, 1, 0], [0, 0, 0, 1]])
    groups_S = supernodes.clusters(alike_SS)
    # 1 is like 0 and like 2, which are not alike.
    assert groups_S[0] == groups_S[1] and len({*groups_S[1:]}) == 3


def drawn() -> Graph:
    """Features 0, 1, 2 at position 1 and 0, 3 at position 2, all of which write the logit."""
    kinds = [FEATURE] * 5 + [TOKEN] * 3 + [LOGIT]
    nodes = Nodes(
        torch.tensor(kinds),
        torch.tensor([0] * 5 + [-1] * 4),
        torch.tensor([1, 1, 1, 2, 2, 0, 1, 2, 2]),
        torch.tensor([0, 1, 2, 0, 3, 7, 7, 7, 9]),
        torch.ones(9),
    )
    edges = torch.zeros(9, 9)
    edges[:5, 6], edges[8, :5] = 1, 1
    return Graph(nodes, edges, torch.zeros(9), torch.zeros(9), [HOOK])


@pytest.mark.parametrize(("together", "groups"), [(True, [[0, 1]]), (False, [])])
def test_what_fires_together_at_a_position_is_a_supernode(together: bool, groups: list):
    draw = np.random.default_rng(0)
    fired_BF = (draw.random((4000, 4)) < 0.05).astype(np.int32)
    if together:  # twins but for one token in twenty
        fired_BF[:, 1] = fired_BF[:, 0] * (draw.random(4000) < 0.95)
        fired_BF[:, 3] = fired_BF[:, 2]
    fired = supernodes.Firings({HOOK: csc_matrix(fired_BF)}, len(fired_BF))
    graph = drawn()
    found = supernodes.supernodes(graph, influence.prune(graph, 1.0, 1.0), fired)
    assert found.nodes == groups and found.share == len(groups) * 2 / 5
    assert found.null == 0  # shifted firings meet by chance alone, the known-bad twin


def test_shifted_firings_are_as_many():
    fired_BS = csc_matrix(np.random.default_rng(1).integers(2, size=(50, 6)).astype(np.int32))
    moved_BS = supernodes.shifted(fired_BS, seed=0)
    np.testing.assert_array_equal(moved_BS.sum(0), fired_BS.sum(0))
    assert (moved_BS != fired_BS).sum() > 0
