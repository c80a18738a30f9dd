"""Attribution against exact patching, where they must agree, and where gradients must miss what
exact patching sees."""

import pytest
import torch

from saelab import models
from saelab.analysis.circuits import Task, score
from saelab.analysis.circuits.heads import attribution_patching as attribution
from saelab.analysis.circuits.heads.patching import edge_scores, node_scores
from saelab.analysis.circuits.heads.stream import (
    by_layer,
    check_sum,
    sites,
    split_inputs,
    writers,
    written,
)
from saelab.errors import UsageError
from saelab.tasks import measure
from tests.analysis.compiled import SATURATED, Compiled, compile_program, compiled_task

Program = tuple[object, Task, Compiled]
LEFT = attribution.between("left", 4)


def program(folder, name: str, **options) -> Program:
    """A compiled model, prompts for it, and its truth."""
    compiled = compile_program(name, folder, **options)
    model = models.load(folder)
    return model, compiled_task(name, model, n=24), compiled


@pytest.fixture(scope="module", params=["induction", "selector"])
def soft(request, tmp_path_factory) -> Program:
    return program(tmp_path_factory.mktemp("soft"), request.param)


@pytest.fixture(scope="module")
def saturated(tmp_path_factory) -> Program:
    return program(tmp_path_factory.mktemp("saturated"), "induction", sharpness=SATURATED)


def random_task(model, length: int = 7) -> Task:
    """Random tokens on a tiny random model, which does no task but has every path."""
    generator = torch.Generator().manual_seed(0)
    clean, corrupted = torch.randint(1, 257, (2, 5, length), generator=generator)
    answers = torch.randint(1, 257, (2, 5, 1), generator=generator)
    return Task("random", clean, corrupted, *answers, "logit_difference", {}, {})


@pytest.fixture(scope="module")
def tiny(tiny_model):
    model = models.load(tiny_model)
    return model, random_task(model)


def test_the_writers_add_up_to_the_stream_and_a_missing_one_is_noticed(tiny, monkeypatch):
    model, task = tiny
    check_sum(model, task)
    assert len(written(model, task.clean)) == len(writers(model)) == 1 + 2 * 5
    from saelab.analysis.circuits.heads import stream

    whole = stream.written
    monkeypatch.setattr(stream, "written", lambda model, tokens: whole(model, tokens)[:-1])
    with pytest.raises(UsageError, match="not the sum of its embedding, heads and MLPs"):
        check_sum(model, task)


def test_a_writers_edges_sum_to_its_node_score(tiny):
    """The chain rule, with the node's gradient taken by another route than its readers'."""
    for points in (attribution.CLEAN, attribution.between("midpoint", 3)):
        nodes_PU, edges_PUR = (
            of(*tiny, points) for of in (attribution.node_scores, attribution.edge_scores)
        )
        torch.testing.assert_close(
            edges_PUR.sum(2), nodes_PU, rtol=1e-4, atol=1e-5 * float(nodes_PU.abs().max())
        )


def test_a_single_step_is_the_gradient_of_the_clean_run(tiny):
    model, task = tiny
    seen = {}

    def keep(acts, hook):
        seen["x"] = acts.detach().clone().requires_grad_()
        return seen["x"]

    logits = model.run_with_hooks(
        task.clean, return_type="logits", fwd_hooks=[("blocks.0.hook_in", keep)]
    )
    (gradient_PTD,) = torch.autograd.grad(measure(task, logits).sum(), seen["x"])
    change_PTD = written(model, task.clean)[0] - written(model, task.corrupted)[0]
    expected_P = (change_PTD * gradient_PTD).sum((1, 2))
    torch.testing.assert_close(attribution.node_scores(model, task)[:, 0], expected_P)
    other_P = attribution.node_scores(model, task, [0.0, 0.5])[:, 0]
    assert not torch.allclose(other_P, expected_P, rtol=1e-2)


def test_the_switches_are_as_before(tiny):
    model, _ = tiny
    with split_inputs(model):
        assert model.cfg.use_split_qkv_input
    assert not model.cfg.use_split_qkv_input and not model.cfg.use_hook_mlp_in


class Frozen:
    """A model whose activations at some hooks stay those of the clean prompts."""

    def __init__(self, model, task: Task, names: list[str]):
        self.model, self.names, self.kept = model, names, {}
        model.run_with_hooks(
            task.clean, return_type="logits", fwd_hooks=[(name, self._keep) for name in self.names]
        )

    def __getattr__(self, name: str):
        return getattr(self.model, name)

    def __call__(self, tokens, **options):
        return self.run_with_hooks(tokens, [], **options)

    def _keep(self, acts, hook):
        self.kept[hook.name] = acts.detach()

    def _put(self, acts, hook):
        return self.kept[hook.name] + 0 * acts

    def run_with_hooks(self, tokens, fwd_hooks, **options):
        return self.model.run_with_hooks(
            tokens, fwd_hooks=[*((n, self._put) for n in self.names), *fwd_hooks], **options
        )


def test_where_the_metric_is_linear_every_method_is_exact(tiny):
    """Syed et al. 2023: attribution is a first-order expansion, so it is exact where there is
    nothing of second order."""
    model, task = tiny
    layers = range(model.cfg.n_layers)
    ends = ("attn.hook_pattern", "ln1.hook_scale", "hook_mlp_out")
    frozen = Frozen(
        model, task, ["ln_final.hook_scale", *(f"blocks.{n}.{end}" for n in layers for end in ends)]
    )
    atp, ig = (
        by_layer(attribution.node_scores(frozen, task, points).mean(0), len(layers))[0]
        for points in (attribution.CLEAN, LEFT)
    )
    clean = measure(
        task, frozen.run_with_hooks(task.clean, fwd_hooks=[], return_type="logits")
    ).mean()
    for layer in layers:
        twin = {}
        name = f"blocks.{layer}.attn.hook_z"
        note = (name, lambda acts, hook, twin=twin: twin.update(z=acts))
        frozen.run_with_hooks(task.corrupted, return_type="logits", fwd_hooks=[note])
        for head in range(model.cfg.n_heads):

            def swap(acts, hook, twin=twin, head=head):
                acts = acts.clone()
                acts[:, :, head] = twin["z"][:, :, head]
                return acts

            logits = frozen.run_with_hooks(
                task.clean, return_type="logits", fwd_hooks=[(name, swap)]
            )
            exact = clean - measure(task, logits).mean()
            for found in (atp, ig):
                assert abs(found[layer, head] - exact) < 1e-5 * max(1.0, abs(float(clean))), (
                    layer,
                    head,
                )


def test_edges_on_a_linear_path_are_exact_and_those_through_a_norm_are_not(tiny):
    """Into the logits only the last norm is in the way: frozen, attribution and path patching are
    the same number."""
    model, task = tiny
    frozen, found = Frozen(model, task, ["ln_final.hook_scale"]), {}
    for name, one in (("frozen", frozen), ("free", model)):
        exact = edge_scores(one, task)[:, -1]
        points = (attribution.CLEAN, LEFT)
        each = (attribution.edge_scores(one, task, at).mean(0)[:, -1] for at in points)
        found[name] = max(
            float((scores - exact).abs().max() / exact.abs().max()) for scores in each
        )
    assert found["frozen"] < 1e-5 and found["free"] > 1e-3, found


def test_edges_to_the_logits_are_exact_but_for_the_last_norm(soft: Program):
    """In a compiled model the norm is a constant, so edges into the logits are linear: all methods
    agree with exact patching."""
    model, task, _ = soft
    exact = edge_scores(model, task)[:, -1]
    for points in (attribution.CLEAN, LEFT):
        found = attribution.edge_scores(model, task, points)
        torch.testing.assert_close(found.mean(0)[:, -1], exact, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("rule", "order"), [("left", 1), ("right", 1), ("midpoint", 2)])
def test_what_integrated_gradients_miss_falls_with_the_points(soft: Program, rule: str, order: int):
    """Sundararajan et al. 2017: the embedding's score converges to m(clean) - m(corrupted)."""
    model, task, _ = soft
    found = [attribution.quadrature(model, task, rule, n).missing for n in (16, 32, 64)]
    whole = measure(task, model(task.clean, return_type="logits")) - measure(
        task, model(task.corrupted, return_type="logits")
    )
    scores_P = attribution.node_scores(model, task, attribution.between(rule, 16))[:, 0]
    missing = float((scores_P - whole).mean().abs() / whole.mean().abs())
    assert found[0] == pytest.approx(missing, rel=1e-3)
    if order == 1:
        assert found[1] == pytest.approx(found[0] / 2, rel=0.25)
        assert found[2] == pytest.approx(found[1] / 2, rel=0.25)
    assert order == 1 or found[2] < attribution.quadrature(model, task, "left", 64).missing / 10


def test_points_of_an_unknown_rule_are_refused():
    assert attribution.between("left", 5) == [0, 0.2, 0.4, 0.6, 0.8]
    with pytest.raises(UsageError, match="unknown points 'simpson': there are left, midpoint"):
        attribution.between("simpson", 5)


def test_of_activations_it_is_complete_for_the_embedding_too(soft: Program):
    model, task, _ = soft
    inputs, own = (
        attribution.edge_scores(model, task, LEFT),
        attribution.edge_scores_by_activation(model, task, LEFT),
    )
    assert own.shape == inputs.shape
    torch.testing.assert_close(own[:, 0].sum(1), inputs[:, 0].sum(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        own[:, :, -1], inputs[:, :, -1], rtol=2e-2, atol=5e-3
    )  # linear but for the last norm


def test_saturated_attention_hides_the_query_path_from_gradients_and_not_from_exact_patching(
    saturated: Program,
):
    model, task, compiled = saturated
    query = ("embed", "a1.h1.q")
    gradients = {edge[:2]: edge.score for edge in score(model, task, "eap").edges or []}
    exact = {
        edge[:2]: edge.score for edge in score(model, task, "patching", edges=True).edges or []
    }
    metric = float(measure(task, model(task.clean, return_type="logits")).mean())
    assert query in compiled.edges
    assert abs(gradients[query]) < 1e-3 * metric
    assert exact[query] > 0.5 * metric
    assert abs(score(model, task, "atp").heads[0, 2]) < 1e-3 * metric < exact["embed", "a0.h2.v"]


def test_nodes_by_exact_patching_are_one_run_each(tiny):
    model, task = tiny
    heads, mlps = node_scores(model, task)
    twin, name = {}, "blocks.1.hook_mlp_out"
    model.run_with_hooks(
        task.corrupted,
        return_type="logits",
        fwd_hooks=[(name, lambda acts, hook: twin.update(x=acts))],
    )
    swapped = model.run_with_hooks(
        task.clean, return_type="logits", fwd_hooks=[(name, lambda acts, hook: twin["x"])]
    )
    expected = (
        measure(task, model(task.clean, return_type="logits")) - measure(task, swapped)
    ).mean()
    assert heads.shape == (2, 4) and mlps[1] == pytest.approx(float(expected), abs=1e-5)


def test_sites_name_every_reader_once(tiny):
    names = [name for site in sites(tiny[0]) for name in site.readers()]
    assert len(names) == len(set(names)) == 2 * (3 * 4 + 1) + 1
    assert names[:2] == ["a0.h0.q", "a0.h1.q"] and names[-2:] == ["m1", "logits"]
