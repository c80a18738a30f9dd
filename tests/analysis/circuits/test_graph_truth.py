"""Attribution graphs where the truth is known: compiled programs with their own variables as the
dictionary, and a model that is linear.

Shapes: as in `graph.py`; U coordinates of the program, E width of a head.
"""

import copy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from saelab import SAE, Threshold, models
from saelab.analysis.circuits.graphs import intervention
from saelab.analysis.circuits.graphs.apart import Local, take_apart
from saelab.analysis.circuits.graphs.graph import ERROR, FEATURE, LOGIT, TOKEN, Graph, graph
from saelab.analysis.circuits.planted import compile_program, compiled_task
from saelab.analysis.circuits.planted import compiled as compiling
from saelab.analysis.circuits.planted.program import N_HEADS, SOFT, Program, induction
from saelab.models import running
from saelab.origin import Origin
from tests.analysis.circuits.test_graph import miss
from tests.analysis.compiled import PROGRAMS

Z, PATTERN = "blocks.{}.attn.o.hook_in", "blocks.{}.attn.hook_pattern"


class World(NamedTuple):
    """A compiled program, one of its prompts, and its variables as dictionaries."""

    program: Program
    model: Any
    tokens: torch.Tensor
    answer: int
    saes: list[SAE]
    columns: dict[int, list[tuple[int, int]]]
    """by layer: (head, entry of its value) of each feature of the dictionary at Z"""


def variables(hook: str, target: str, enter_FD, bias_F, leave_FD) -> SAE:
    """A dictionary whose features are given: relu(x . enter + bias) x leave."""
    n_features, width = enter_FD.shape
    sae = SAE(width, n_features, Threshold(0.0), transcoder=bool(target))
    sae.W_enc.data, sae.b_enc.data, sae.W_dec.data = enter_FD, bias_F, leave_FD
    sae.b_dec.data.zero_()
    sae.origin = Origin(hook, target)
    return sae


def of_heads(program: Program, layer: int) -> tuple[SAE, list[tuple[int, int]]]:
    """What the program's heads of a layer fetch, each entry of a value a feature."""
    width = 2 * program.variables.n
    heads = {head: maps for (at, head), maps in program.heads.items() if at == layer}
    columns = [
        (head, entry) for head, maps in heads.items() for entry in range(maps.value.shape[1])
    ]
    at_F = torch.tensor([head * (width // N_HEADS) + entry for head, entry in columns])
    rows_FD = torch.eye(width)[at_F]
    return variables(Z.format(layer), "", rows_FD, torch.zeros(len(at_F)), rows_FD.clone()), columns


def of_neurons(program: Program, layer: int) -> SAE:
    """What the program's MLP of a layer computes."""
    neurons, mlp = program.mlps[layer], f"blocks.{layer}.mlp"
    enter_FD, leave_FD = (torch.cat([one, -one], 1) for one in (neurons.enter.T, neurons.leave))
    hooks = f"{mlp}.hook_in", f"{mlp}.hook_out"
    return variables(*hooks, enter_FD / 2, neurons.bias, leave_FD)


@pytest.fixture(scope="module", params=[*PROGRAMS])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    program = PROGRAMS[request.param](SOFT)
    model = models.load(compile_program(program, tmp_path_factory.mktemp("world")).folder)
    task = compiled_task(program, model, 1)
    by_layer = {layer: of_heads(program, layer) for layer in (0, 1)}
    saes = [sae for sae, _ in by_layer.values()]
    saes += [of_neurons(program, layer) for layer in program.mlps]
    columns = {layer: listed for layer, (_, listed) in by_layer.items()}
    return World(program, model, task.clean[0], int(task.right[0, 0]), saes, columns)


def true_paths(world: World, drawn: Graph) -> torch.Tensor:
    """[M, M] bool: the program's paths by value, from what each head looks at, told by its
    attention alone."""
    program, nodes = world.program, drawn.nodes
    true_MM = torch.zeros(len(nodes.kind), len(nodes.kind), dtype=torch.bool)
    tokens = (nodes.kind == TOKEN).nonzero().flatten()
    features = (nodes.kind == FEATURE).nonzero().flatten().tolist()
    patterns = running.read(world.model, world.tokens[None], [PATTERN.format(n) for n in (0, 1)])
    for node in features:
        hook, at = drawn.places[int(nodes.place[node])], int(nodes.position[node])
        layer = int(hook.split(".")[1])
        if hook == Z.format(layer):
            head, entry = world.columns[layer][int(nodes.number[node])]
            attention_T = patterns[PATTERN.format(layer)].view(-1, *[len(tokens)] * 2)[head, at]
            source = int(attention_T.argmax())
            word_U = program.variables("word")[:, world.tokens[source]]
            carries = bool(word_U @ program.heads[layer, head].value[:, entry])
            true_MM[node, tokens[source]] = carries and bool(attention_T[source] > 0.6)
        else:  # a neuron: it computes with what the heads of its layer fetched
            fetched = drawn.places.index(Z.format(layer))
            beside_M = (nodes.kind == FEATURE) & (nodes.position == at)
            true_MM[node] = beside_M & (nodes.place == fetched)
    answer = (nodes.kind == LOGIT) & (nodes.number == world.answer)
    last = (nodes.position == len(tokens) - 1) & (nodes.kind == FEATURE)
    for node in last.nonzero().flatten().tolist():
        if drawn.places[int(nodes.place[node])] == Z.format(1):
            _, entry = world.columns[1][int(nodes.number[node])]
            true_MM[answer, node] = entry == world.answer
    return true_MM


def area(drawn: Graph, true_MM: torch.Tensor) -> float:
    """The share of (true, other) pairs of edges in which the true one is larger."""
    from sklearn.metrics import roc_auc_score

    rows = (drawn.nodes.kind == FEATURE) | (drawn.nodes.kind == LOGIT)
    return float(roc_auc_score(true_MM[rows].flatten(), drawn.edges[rows].abs().flatten()))


def thawed(local: Local) -> Local:
    """The known-bad twin: gradients flow through attention patterns too."""
    held = {name: acts for name, acts in local.held.held.items() if "hook_pattern" not in name}
    return local._replace(held=local.held._replace(held=held))


def test_every_true_path_of_a_program_ranks_above_all_other_edges(world: World):
    local = take_apart(world.model, world.tokens, world.saes)
    drawn = graph(world.model, local)
    true_MM = true_paths(world, drawn)
    assert true_MM.sum() >= 5 and bool((drawn.edges[true_MM] > 0.6).all())
    assert area(drawn, true_MM) == 1
    assert area(graph(world.model, thawed(local)), true_MM) < 1


def test_inputs_add_up_and_a_missing_error_node_is_caught(world: World):
    half = copy.deepcopy(world.saes)
    half[1].W_dec.data /= 2  # the other half of what the output is made of is error
    drawn = graph(world.model, take_apart(world.model, world.tokens, half))
    assert miss(drawn) < 1e-4
    drawn.edges[:, drawn.nodes.kind == ERROR] = 0
    assert miss(drawn) > 0.1


@pytest.mark.parametrize(("sharpness", "linear"), [(0.0, True), (SOFT, False)])
def test_on_a_linear_model_what_is_foretold_is_what_ablation_does(
    sharpness: float, linear: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Heads that look everywhere alike, no MLPs, and norms that see the constant alone: linear.
    monkeypatch.setattr(compiling, "LEVEL", 3e4)
    program = induction(sharpness)
    model = models.load(compile_program(program, tmp_path, decoys=False).folder).double()
    word_DF = torch.cat([program.variables("word"), -program.variables("word")])
    rows_FD = word_DF.T.contiguous().double()
    sae = variables(
        "blocks.0.hook_out", "", rows_FD / 2, torch.zeros(len(rows_FD)), rows_FD
    ).double()
    tokens_T = compiled_task(program, model, 1).clean[0]
    local = take_apart(model, tokens_T, [sae])
    drawn = graph(model, local)
    ablated_RM = torch.eye(len(drawn.nodes.kind), dtype=torch.bool)[drawn.nodes.kind == FEATURE]
    conditions = intervention.COLUMNS | intervention.APART
    effects = intervention.check(model, local, drawn, ablated_RM, conditions)
    scale = float(effects.predicted.abs().max())
    assert scale > 0.1
    off = max(
        float((effects.predicted - column).abs().max()) for column in effects.measured.values()
    )
    assert off < 1e-5 * scale if linear else off > 1e-3 * scale
