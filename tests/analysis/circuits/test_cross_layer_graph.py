"""Attribution graphs of cross-layer transcoders: one that writes to its own layers is transcoders,
one that writes further has edges from all layers it writes to."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from saelab import SAE, CrossLayerTranscoder, joint, models, one_layer
from saelab.analysis import frozen, parts
from saelab.analysis.circuits.graphs import intervention
from saelab.analysis.circuits.graphs.apart import Local, take_apart
from saelab.analysis.circuits.graphs.graph import ERROR, FEATURE, Graph, graph
from saelab.errors import UsageError
from saelab.origin import Origin, part_of
from tests.analysis.circuits.test_graph import miss
from tests.analysis.dictionaries import random_task, transcoder

TOKENS = random_task().clean[0]
SAES = [transcoder(0), transcoder(1, seed=1)]
WIDTH = SAES[0].d_model


def across(saes: list[SAE], scale: float = 0.0) -> CrossLayerTranscoder:
    """The cross-layer transcoder of these transcoders, whose first layer also writes rows of that
    size to the second."""
    draw = torch.Generator().manual_seed(7)
    later = scale * torch.randn(saes[0].W_dec.shape, generator=draw)
    rows = [torch.cat([saes[0].W_dec.detach(), later], 1), saes[1].W_dec.detach()]
    layers = [
        {"W_enc": sae.W_enc.detach(), "b_enc": sae.b_enc.detach(), "W_dec": W_dec}
        for sae, W_dec in zip(saes, rows, strict=True)
    ]
    b_dec = torch.cat([sae.b_dec.detach() for sae in saes])
    clt = CrossLayerTranscoder.of(layers, b_dec, saes[0].sparsify)
    hooks = zip(*(sae.origin.hooks for sae in saes), strict=True)
    clt.origin = Origin(*map(joint.joined, hooks))
    return clt


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return models.load(tiny_model)


def traced(model, *coders) -> tuple[Local, Graph]:
    local = take_apart(model, TOKENS, coders)
    return local, graph(model, local)


def effects(model, local: Local, drawn: Graph) -> dict[str, Tensor]:
    """What every kind of intervention makes of ablating features of both layers at the last
    position, one by one and together, and the edges."""
    features_M = drawn.nodes.kind == FEATURE
    lasts = [int((features_M & (drawn.nodes.place == i)).nonzero()[-1]) for i in (0, 1)]
    off_RM = torch.zeros(3, len(drawn.nodes.kind), dtype=torch.bool)
    off_RM[0, lasts[0]] = off_RM[1, lasts[0] - 1] = True
    off_RM[2, [node - 2 for node in lasts]] = True
    conditions = intervention.COLUMNS | intervention.APART
    found = intervention.check(model, local, drawn, off_RM, conditions)
    return {"edges": drawn.edges, "predicted": found.predicted, **found.measured}


def apart(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, float]:
    return {name: float((mine[name] - theirs[name]).abs().max()) for name in mine}


def test_one_that_writes_to_its_own_layers_is_the_transcoders(model):
    due = traced(model, *SAES)
    same = apart(effects(model, *traced(model, across(SAES))), effects(model, *due))
    assert max(same.values()) < 1e-5
    elsewhere = effects(model, *traced(model, across(SAES, 0.1)))
    assert min(apart(elsewhere, effects(model, *due)).values()) > 1e-4


def test_what_it_writes_further_are_edges_and_no_error(model):
    local, drawn = traced(model, across(SAES, 0.1))
    assert miss(drawn) < 1e-5
    acts = frozen.run(model, local.held, {}, ["blocks.1.mlp.hook_out"])["blocks.1.mlp.hook_out"][0]
    read = frozen.run(model, local.held, {}, ["blocks.0.mlp.hook_in", "blocks.1.mlp.hook_in"])
    x_TD = torch.cat([value[0] for value in read.values()], 1)
    left_TD = acts - across(SAES, 0.1)(x_TD)[:, WIDTH:]
    torch.testing.assert_close(local.places[1].parts.error[0, 1:], left_TD[1:].detach())
    kinds, places = drawn.nodes.kind, drawn.nodes.place
    assert int((kinds == ERROR).sum()) == 2 * len(TOKENS)
    assert set(places[kinds == FEATURE].tolist()) == {0, 1}


@pytest.mark.parametrize("scale", [0.0, 0.1])
def test_held_as_attribution_assumes_ablations_are_foretold(model, scale: float):
    found = effects(model, *traced(model, across(SAES, scale)))
    torch.testing.assert_close(found["held"], found["predicted"], rtol=1e-4, atol=1e-4)


def test_an_ablation_that_leaves_later_layers_out_is_caught(model, monkeypatch):
    local, drawn = traced(model, across(SAES, 0.1))
    plain = parts.Site.decoders
    monkeypatch.setattr(parts.Site, "decoders", lambda site: {site.write: plain(site)[site.write]})
    found = effects(model, local, drawn)
    assert float((found["held"] - found["predicted"]).abs().max()) > 1e-3


def test_features_beyond_the_limit_join_the_errors_of_all_layers(model):
    few = take_apart(model, TOKENS, [across(SAES, 0.1)], most=12)
    assert sum(len(place.parts.code.values) for place in few.places) == 12
    assert miss(graph(model, few)) < 1e-5


def test_layers_add_up_to_the_whole():
    clt = across(SAES, 0.1)
    x_BD = torch.randn(5, 2 * WIDTH, generator=torch.Generator().manual_seed(1))
    first, second = (one_layer.transcoder(clt, i) for i in range(2))
    total_BE = first(x_BD[:, :WIDTH])
    total_BE[:, WIDTH:] += second(x_BD[:, WIDTH:])
    torch.testing.assert_close(total_BE, clt(x_BD))
    assert (
        first.origin.target == clt.origin.target and second.origin.target == SAES[1].origin.target
    )
    assert part_of(first.origin.more) == "layer 0 of a cross-layer transcoder of 2 layers"
    assert part_of(clt.origin.more) == ""


def test_crosscoders_and_layers_alone_are_refused_with_the_reason(model):
    crosscoder = SAE(2 * WIDTH, 48, SAES[0].sparsify)
    crosscoder.origin = Origin("blocks.0.hook_out+blocks.1.hook_out")
    with pytest.raises(UsageError, match="no place in the order in which a model runs"):
        take_apart(model, TOKENS, [crosscoder])
    for i in range(2):
        with pytest.raises(UsageError, match=rf"layer {i} of a cross-layer .* name the whole"):
            take_apart(model, TOKENS, [one_layer.transcoder(across(SAES), i)])
    with pytest.raises(UsageError, match=r"more than one SAE explains blocks.1.mlp.hook_out"):
        take_apart(model, TOKENS, [across(SAES), SAES[1]])
