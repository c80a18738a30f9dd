"""Attribution graphs: exact sums, conservation, scores and pruning by hand, predicted against
measured ablation."""

import itertools
from pathlib import Path

import pytest
import torch

from saelab import models
from saelab.analysis import frozen
from saelab.analysis.circuits.graphs import influence, intervention
from saelab.analysis.circuits.graphs.apart import Local, take_apart
from saelab.analysis.circuits.graphs.graph import ERROR, FEATURE, LOGIT, TOKEN, Graph, Nodes, graph
from saelab.errors import UsageError
from saelab.models import running
from tests.analysis.dictionaries import RESIDUAL, Z, dictionary, random_task, transcoder

TOKENS = random_task().clean[0]
SETS = {
    "transcoders": [transcoder(0), transcoder(1, seed=1)],
    "attention": [dictionary("blocks.0.attn.hook_z", seed=2), dictionary(Z, seed=3), transcoder(0)],
    "residual": [dictionary(RESIDUAL, seed=4), dictionary(Z, seed=3)],
    "none": [],
}
LAST = [transcoder(1, seed=1)]
LAST[
    0
].W_dec.data *= (
    0.05  # small beside the residual stream, as a trained one's: the final norm moves a little
)


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return models.load(tiny_model)


def miss(drawn: Graph) -> float:
    """The largest difference between a target and the sum over its inputs, in shares of the sum of
    their sizes."""
    targets = (drawn.nodes.kind == FEATURE) | (drawn.nodes.kind == LOGIT)
    miss_M = (drawn.edges.sum(1) + drawn.biases - drawn.totals).abs()
    size_M = drawn.edges.abs().sum(1) + drawn.biases.abs()
    return float((miss_M / size_M)[targets].max())


@pytest.mark.parametrize("saes", SETS.values(), ids=SETS)
def test_every_target_is_the_sum_of_its_inputs(model, saes):
    drawn = graph(model, take_apart(model, TOKENS, saes))
    assert miss(drawn) < 1e-5
    counts = [int((drawn.nodes.kind == kind).sum()) for kind in (FEATURE, ERROR, TOKEN)]
    assert counts == [6 * 5 * len(saes), 7 * len(drawn.places), 7] and len(drawn.places) == 2 + sum(
        not sae.transcoder for sae in saes
    )


@pytest.mark.parametrize("missing", ["hook_pattern", "hook_scale"])
def test_a_graph_of_moving_patterns_or_norms_is_caught(model, missing: str):
    local = take_apart(model, TOKENS, SETS["transcoders"])
    thawed = {name: value for name, value in local.held.held.items() if not name.endswith(missing)}
    assert miss(graph(model, local._replace(held=local.held._replace(held=thawed)))) > 1e-3


def test_totals_are_what_the_model_computes(model):
    local = take_apart(model, TOKENS, SETS["transcoders"])
    drawn, sae = graph(model, local), SETS["transcoders"][1]
    x_TD = frozen.run(model, local.held, {}, ["blocks.1.mlp.hook_in"])["blocks.1.mlp.hook_in"][0]
    pre_TF = x_TD.double() @ sae.W_enc.double().T + sae.b_enc.double()
    mine = (drawn.nodes.kind == FEATURE) & (drawn.nodes.place == 1)
    torch.testing.assert_close(
        drawn.totals[mine].double(),
        pre_TF[drawn.nodes.position[mine], drawn.nodes.number[mine]].detach(),
    )
    logits_V = model(TOKENS[None])[0, -1]
    outputs = drawn.nodes.number[drawn.nodes.kind == LOGIT]
    torch.testing.assert_close(
        drawn.totals[drawn.nodes.kind == LOGIT], (logits_V - logits_V.mean())[outputs]
    )
    covered = logits_V.softmax(0)[outputs].sum()
    assert len(outputs) <= 10 and (covered >= 0.95 or len(outputs) == 10)


def test_features_beyond_the_limit_join_the_errors(model):
    whole, few = (
        graph(model, take_apart(model, TOKENS, SETS["transcoders"], most=n)) for n in (1000, 12)
    )
    kept = few.nodes.value[few.nodes.kind == FEATURE]
    values = whole.nodes.value[whole.nodes.kind == FEATURE]
    assert torch.equal(kept.sort().values, values.sort().values[-12:]) and miss(few) < 1e-5


def hand_graph() -> Graph:
    """token 0 -> feature 2 (3 of 4, the error 1 of 4); feature 2 -> logit 3 (2 of 4), token and
    error 1 of 4 each."""
    edges = torch.zeros(4, 4)
    order = torch.tensor([2, 1, 0, 3])  # features, errors, tokens, logits
    edges[2, 0], edges[2, 1], edges[3, 2], edges[3, 0], edges[3, 1] = 3, -1, 2, -1, 1
    edges = edges[order][:, order]
    nodes = Nodes(
        torch.tensor([FEATURE, ERROR, TOKEN, LOGIT]),
        torch.tensor([0, 0, -1, -1]),
        torch.tensor([0, 0, 0, 0]),
        torch.tensor([5, -1, 9, 7]),
        torch.tensor([1.0, 1.0, 1.0, 0.8]),
    )
    return Graph(nodes, edges, torch.zeros(4), torch.zeros(4), ["blocks.0.mlp.hook_out"])


def test_influence_and_scores_by_hand():
    drawn = hand_graph()
    found = influence.influence(influence.shares(drawn.edges), influence.output_weights(drawn))
    torch.testing.assert_close(
        found, torch.tensor([0.4, 0.3, 0.5, 0], dtype=torch.float64), rtol=1e-6, atol=1e-12
    )
    scores = influence.scores(drawn)
    assert scores.replacement == pytest.approx(0.5 / 0.8)
    assert scores.floor == pytest.approx(
        0.25
    )  # without features: |-1| from the token, 1 + 2 from the error
    assert scores.completeness == pytest.approx((0.4 * 0.75 + 0.8 * 0.75) / 1.2)


def test_pruning_by_hand():
    drawn = hand_graph()
    core = influence.prune(drawn, node_share=0.7, edge_share=0.5)
    assert core.nodes.tolist() == [
        True,
        False,
        True,
        True,
    ]  # token .5 and feature .4 lead, the error's .3 is beyond 70%
    assert core.edges.nonzero().tolist() == [[0, 2], [3, 0]]
    everything = influence.prune(drawn, 1.0, 1.0)
    assert everything.nodes.all() and int(everything.edges.sum()) == 5
    alone = influence.prune(drawn, node_share=0.0)
    assert alone.nodes.tolist() == [
        False,
        False,
        True,
        True,
    ] and alone.edges.nonzero().tolist() == [[3, 2]]


@pytest.mark.parametrize("saes", SETS.values(), ids=SETS)
def test_influence_is_conserved(model, saes):
    drawn = graph(model, take_apart(model, TOKENS, saes))
    weights_M = influence.output_weights(drawn)
    found = influence.influence(influence.shares(drawn.edges), weights_M)
    ends = (drawn.nodes.kind == TOKEN) | (drawn.nodes.kind == ERROR)
    assert float(found[ends].sum()) == pytest.approx(float(weights_M.sum()), rel=1e-12)
    doubled = influence.influence(2 * influence.shares(drawn.edges), weights_M)
    assert float(doubled[ends].sum()) > 1.5 * float(
        weights_M.sum()
    )  # rows that do not add up to 1 conserve nothing


def test_a_graph_without_features_scores_its_floor_and_one_without_errors_scores_1(model):
    bare = influence.scores(graph(model, take_apart(model, TOKENS, [])))
    assert bare.floor == pytest.approx(bare.replacement) and 0 < bare.floor < 1
    local = take_apart(model, TOKENS, SETS["transcoders"])
    perfect = [
        place._replace(parts=place.parts._replace(error=torch.zeros_like(place.parts.error)))
        for place in local.places
    ]
    scores = influence.scores(
        graph(model, Local(local.held, perfect, local.embedding, local.logits))
    )
    assert (
        scores.replacement == pytest.approx(1)
        and scores.completeness == pytest.approx(1)
        and scores.floor < 1
    )


@pytest.mark.parametrize(
    "saes",
    [LAST, SETS["attention"], SETS["residual"]],
    ids=["transcoders", "attention", "residual"],
)
def test_ablations_are_foretold_exactly_while_frozen_and_roughly_while_not(model, saes):
    local = take_apart(model, TOKENS, saes)
    drawn = graph(model, local)
    weights_M = influence.output_weights(drawn)
    features_M = torch.where(
        drawn.nodes.kind == FEATURE,
        influence.influence(influence.shares(drawn.edges), weights_M),
        0,
    )
    first = features_M.argsort(descending=True)[: min(30, int((features_M > 0).sum()))]
    ablated_RM = torch.nn.functional.one_hot(first, len(features_M)).bool()
    predicted, measured = intervention.check(model, local, drawn, ablated_RM)
    held, free = measured["held"], measured["free"]
    scale = float(predicted.abs().max())
    assert scale > 0.01 and float((predicted - held).abs().max()) < 1e-4 * scale
    assert float((predicted - free).abs().max()) > 1e-3 * scale
    assert float(torch.corrcoef(torch.stack([predicted.flatten(), free.flatten()]))[0, 1]) > 0.5


def test_several_features_ablated_at_once_do_not_count_twice(model):
    local = take_apart(model, TOKENS, SETS["transcoders"])
    drawn = graph(model, local)
    some = (drawn.nodes.kind == FEATURE) & (torch.arange(len(drawn.nodes.kind)) % 3 == 0)
    found = intervention.check(model, local, drawn, some[None])
    held = found.measured["held"]
    torch.testing.assert_close(
        found.predicted, held, rtol=1e-3, atol=1e-4 * float(held.abs().max())
    )


def test_the_models_own_change_is_that_of_a_run_without_what_the_feature_writes(model):
    local = take_apart(model, TOKENS, SETS["transcoders"])
    drawn = graph(model, local)
    node = int(((drawn.nodes.kind == FEATURE) & (drawn.nodes.place == 0)).nonzero()[3])
    ablated_RM = torch.nn.functional.one_hot(torch.tensor([node]), len(drawn.nodes.kind)).bool()
    _, measured = intervention.check(model, local, drawn, ablated_RM)
    held, free, changed = (measured[name] for name in ("held", "free", "model"))
    position, feature = int(drawn.nodes.position[node]), int(drawn.nodes.number[node])
    written_D = drawn.nodes.value[node] * SETS["transcoders"][0].W_dec[feature].detach()

    def without(acts):
        acts = acts.clone()
        acts[0, position] -= written_D
        return acts

    edit = [("blocks.0.mlp.hook_out", without)]
    before_V, after_V = (running.logits(model, TOKENS[None], e)[0, -1] for e in ([], edit))
    difference_V = (after_V - after_V.mean()) - (before_V - before_V.mean())
    outputs_K = drawn.nodes.number[drawn.nodes.kind == LOGIT]
    torch.testing.assert_close(changed[0], difference_V[outputs_K], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(changed, free) and not torch.allclose(changed, held)


def test_each_condition_lets_something_else_move(model):
    local = take_apart(model, TOKENS, SETS["transcoders"])
    drawn = graph(model, local)
    first_M = (drawn.nodes.kind == FEATURE) & (drawn.nodes.place == 0)
    ablated_RM = torch.eye(len(first_M), dtype=torch.bool)[first_M][:6]
    conditions = intervention.COLUMNS | intervention.APART
    measured = intervention.check(model, local, drawn, ablated_RM, conditions).measured
    least = 1e-4 * float(measured["held"].abs().max())
    for one, other in itertools.combinations(conditions, 2):
        assert float((measured[one] - measured[other]).abs().max()) > least, (one, other)


def test_many_ablations_at_once_are_each_ones_own(model):
    local = take_apart(model, TOKENS, SETS["transcoders"])
    drawn = graph(model, local)
    some = (drawn.nodes.kind == FEATURE).nonzero().flatten()[::2][:18]  # more than one pass holds
    ablated_RM = torch.nn.functional.one_hot(some, len(drawn.nodes.kind)).bool()
    together = intervention.check(model, local, drawn, ablated_RM)
    alone = intervention.check(model, local, drawn, ablated_RM[17:])
    pairs = [(together.predicted, alone.predicted)]
    pairs += [(column, alone.measured[name]) for name, column in together.measured.items()]
    for many, one in pairs:
        torch.testing.assert_close(many[17:], one, rtol=1e-4, atol=1e-5)


def test_only_features_can_be_ablated(model):
    local = take_apart(model, TOKENS, LAST)
    drawn = graph(model, local)
    with pytest.raises(UsageError, match="7 of the marked nodes are no features"):
        intervention.check(model, local, drawn, (drawn.nodes.kind == TOKEN)[None])


def test_an_sae_of_the_embedding_is_refused(model):
    with pytest.raises(UsageError, match=r"an SAE at blocks\.0\.hook_in has no inputs to trace"):
        take_apart(model, TOKENS, [dictionary("blocks.0.hook_resid_pre")])


def test_an_sae_of_an_mlps_output_is_refused(model):
    with pytest.raises(UsageError, match=r"reads what the MLP has computed.*name a transcoder"):
        take_apart(model, TOKENS, [dictionary("blocks.0.hook_mlp_out")])
