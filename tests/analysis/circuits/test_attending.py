"""Why heads attend, over the nodes of a graph: exact sums, what heads write, foretold ablations,
and splits that are wrong."""

from pathlib import Path
from typing import NamedTuple

import pytest

from saelab import models
from saelab.analysis import frozen
from saelab.analysis.attention.query_key import Place
from saelab.analysis.circuits.graphs import influence, report
from saelab.analysis.circuits.graphs.apart import Local, take_apart
from saelab.analysis.circuits.graphs.attending import Splitter, edges, leading
from saelab.analysis.circuits.graphs.graph import FEATURE, Graph, graph
from saelab.errors import UsageError
from tests.analysis.dictionaries import Z, dictionary, random_task, transcoder

TOKENS = random_task().clean[0]
AT = Place(1, 2, 6, 3)


class Drawn(NamedTuple):
    model: object
    local: Local
    graph: Graph


@pytest.fixture(scope="module")
def drawn(tiny_model: Path) -> Drawn:
    model = models.load(tiny_model)
    saes = [transcoder(0), dictionary(Z, seed=3), transcoder(1, seed=1)]
    local = take_apart(model, TOKENS, saes)
    return Drawn(model, local, graph(model, local))


def score(model, held: frozen.Frozen, given: dict | None = None, at: Place = AT) -> float:
    """q . k / sqrt(8), with activations given."""
    names = [f"blocks.{at.layer}.attn.hook_{part}" for part in "qk"]
    read = frozen.run(model, held, given or {}, names)
    q, k = (
        read[name][0, where].view(4, 8)[at.head] for name, where in zip(names, at[2:], strict=True)
    )
    return float(q.double() @ k.double() / 8**0.5)


def test_pairs_of_nodes_and_the_rest_add_up_to_the_score(drawn):
    split = Splitter(drawn.model, drawn.local).split(AT)
    whole = score(drawn.model, drawn.local.held)
    assert split.score == pytest.approx(whole, rel=1e-4)
    n_nodes = len(split.queries_ME) - 1
    every = split.pairs(n_nodes**2)
    assert len(every) == n_nodes**2
    assert sum(part for *_, part in every) + split.rest() == pytest.approx(whole, rel=1e-4)
    for query in (True, False):
        assert float(split.marginals(query).sum()) == pytest.approx(whole, rel=1e-4)
    later = (drawn.graph.nodes.position[:n_nodes] > AT.src).nonzero().flatten()
    assert not split.keys_ME[later].any() and split.keys_ME.any()


def test_a_marginal_foretells_the_score_without_the_node(drawn):
    split, nodes = Splitter(drawn.model, drawn.local).split(AT), drawn.graph.nodes
    mine = (nodes.kind == FEATURE) & (nodes.place == 0) & (nodes.position == AT.src)
    node = int(mine.nonzero()[1])
    x_TD = frozen.run(drawn.model, drawn.local.held, {}, [hook := "blocks.0.mlp.hook_out"])[hook][0]
    W_dec = drawn.local.places[0].site.sae.W_dec.detach()
    x_TD[AT.src] -= nodes.value[node] * W_dec[nodes.number[node]]
    change = score(drawn.model, drawn.local.held, {hook: x_TD[None]}) - split.score
    assert change == pytest.approx(-float(split.marginals(False)[node]), rel=1e-3, abs=1e-6)


def test_a_score_whose_norm_moves_is_not_split(drawn):
    """The known-bad twin: without held norms and MLPs parts do not add up, which is refused."""
    held = drawn.local.held
    thawed = {name: x for name, x in held.held.items() if not name.endswith("hook_scale")}
    with pytest.raises(UsageError, match="no plain product of query and key"):
        Splitter(drawn.model, drawn.local._replace(held=held._replace(held=thawed))).split(AT)


def test_edges_of_a_node_are_what_each_head_writes_at_its_position(drawn):
    core = influence.prune(drawn.graph, 1.0, 1.0)
    targets_R = leading(drawn.graph, core.nodes, 1000)
    found = edges(drawn.model, drawn.local, drawn.graph, targets_R)
    nodes, held = drawn.graph.nodes, drawn.local.held
    for place, read in ((0, "blocks.0.mlp.hook_in"), (1, Z)):
        node = next(n for n in found if nodes.kind[n] == FEATURE and nodes.place[n] == place)
        edge, position = found[node][0], int(nodes.position[node])
        layer, head, dest, src = edge.at
        pattern_HTS = held.held[f"blocks.{layer}.attn.hook_pattern"][0]
        v_SHE = frozen.run(drawn.model, held, {}, [hook := f"blocks.{layer}.attn.hook_v"])[hook][0]
        z = f"blocks.{layer}.attn.o.hook_in"
        arrived, without = (
            frozen.run(drawn.model, held, {z: z_TD[None]}, [read])[read][0, position]
            for z_TD in _with_and_without(drawn, z, edge.at, pattern_HTS, v_SHE.view(-1, 4, 8))
        )
        if read == Z:  # what is read there is what heads give
            z_TD, less_TD = _with_and_without(drawn, z, edge.at, pattern_HTS, v_SHE.view(-1, 4, 8))
            arrived, without = z_TD[position], less_TD[position]
        W_D = drawn.local.places[place].site.sae.W_enc.detach()[nodes.number[node]]
        assert dest == position and edge.pattern == pytest.approx(
            float(pattern_HTS[head, dest, src])
        )
        assert float((arrived - without) @ W_D) == pytest.approx(edge.weight, rel=1e-3, abs=1e-5)
        assert [abs(one.weight) for one in found[node]] == sorted(
            (abs(one.weight) for one in found[node]), reverse=True
        )


def _with_and_without(drawn: Drawn, z: str, at: Place, pattern_HTS, v_SHE):
    z_TD = frozen.run(drawn.model, drawn.local.held, {}, [z])[z][0]
    less_TD = z_TD.clone()
    part_E = pattern_HTS[at.head, at.dest, at.src] * v_SHE[at.src, at.head]
    less_TD.view(-1, 4, 8)[at.dest, at.head] -= part_E
    return z_TD, less_TD


def test_a_traced_prompt_names_nodes_that_are_there(drawn):
    saes = [transcoder(0), transcoder(1, seed=1)]
    plan = report.Plan(node_share=0.3, n_ablated=0, n_attended=3)
    fields = report.trace(drawn.model, saes, report.prompt(drawn.model, "abcab"), plan, "p").fields
    traced = [node for node in fields["nodes"] if "qk_tracing_results" in node]
    kept, only = {node["node_id"] for node in fields["nodes"]}, fields["qk_only_nodes"]
    assert len(traced) == 3 and only and not kept & set(only)
    for node in traced:
        results = node["qk_tracing_results"]
        pairs = results["pair_wise_contributors"]
        ends = {end for pair in pairs for end in pair[:2]}
        for side in "qk":
            ends |= {one for one, _ in results[f"top_{side}_marginal_contributors"]}
        assert ends <= kept | set(only)
        assert results["edges"][0]["dest"] == node["ctx_idx"]
        sizes = [abs(part) for *_, part in pairs]
        assert sizes == sorted(sizes, reverse=True)
    bare = plan._replace(n_attended=0)
    fields = report.trace(drawn.model, saes, report.prompt(drawn.model, "abcab"), bare, "p").fields
    assert "qk_only_nodes" not in fields
