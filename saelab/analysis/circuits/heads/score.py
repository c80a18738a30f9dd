"""One interface to every discovery method: `score(model, task, method)` gives scores of nodes and
edges.

Shapes: L layers, H heads, K heads of all layers in order, U writers, R readers.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis.circuits.heads import acdc, attribution_patching, codes, patching
from saelab.analysis.circuits.heads.links import Stop, blank, links
from saelab.analysis.circuits.heads.stream import Edge, by_layer, check_sum, named
from saelab.errors import UsageError
from saelab.sae import SAE
from saelab.tasks import Task, check_twins

POINTS = "midpoint"


class Options(NamedTuple):
    """What methods can be told."""

    seed: int = 0
    """of anything random"""
    n_steps: int = 5
    """interpolation points of EAP-IG"""
    points: str = POINTS
    """where they lie: left (as published), midpoint or right"""
    threshold: float = acdc.THRESHOLD
    """ACDC's, in nats"""
    sae: SAE | None = None
    """the SAE that codes are read with, instead of a small one trained on the spot"""
    edges: bool = False
    """whether exact patching measures edges too (one run each)"""
    stop: Stop | None = None
    """when ACDC and exact patching stop; see `links.within`"""


class Scores(NamedTuple):
    """What a method found, in the order of computation; larger size means more likely in the
    circuit.

    heads [L, H], mlps [L] or None; NaN of what the time did not reach. edges: largest size first,
    without those, or None. Of patching methods a score estimates or measures m(clean) -
    m(resampled): above 0 it helps, below 0 it works against the task. seconds: time taken. n_edges:
    of the model, where there are edges.
    """

    method: str
    heads: Tensor
    mlps: Tensor | None
    edges: list[Edge] | None
    seconds: float
    n_edges: int = 0


Found = tuple[Tensor, Tensor | None, list[Edge] | None]


class Method(NamedTuple):
    """One way to score heads."""

    run: Callable[[Any, Task, Options], Found]
    """the method"""
    prompts: int
    """how many it is given by default"""
    about: str
    """one line"""


def _from_edges(model: Any, scores_UR: Tensor) -> Found:
    return *by_layer(scores_UR.sum(1), model.cfg.n_layers), named(model, scores_UR)


def _atp(model: Any, task: Task, options: Options) -> Found:
    return *by_layer(
        attribution_patching.node_scores(model, task).mean(0), model.cfg.n_layers
    ), None


def _eap(model: Any, task: Task, options: Options) -> Found:
    check_sum(model, task)
    return _from_edges(model, attribution_patching.edge_scores(model, task).mean(0))


def _eap_ig(model: Any, task: Task, options: Options) -> Found:
    check_sum(model, task)
    points = attribution_patching.between(options.points, options.n_steps)
    return _from_edges(model, attribution_patching.edge_scores(model, task, points).mean(0))


def _eap_ig_activations(model: Any, task: Task, options: Options) -> Found:
    check_sum(model, task)
    points = attribution_patching.between(options.points, options.n_steps)
    scores_PUR = attribution_patching.edge_scores_by_activation(model, task, points)
    return _from_edges(model, scores_PUR.mean(0))


def _patching(model: Any, task: Task, options: Options) -> Found:
    edges = None
    if options.edges:
        check_sum(model, task)
    # Nodes come first: there are fewer of them.
    heads_LH, mlps_L = patching.node_scores(model, task, options.stop)
    if options.edges:
        edges = named(model, patching.edge_scores(model, task, options.stop))
    return heads_LH, mlps_L, edges


def _acdc(model: Any, task: Task, options: Options) -> Found:
    check_sum(model, task)
    scores_UR = acdc.search(model, task, options.threshold, options.stop).scores
    tried_UR = blank(links(model), len(scores_UR)).isnan() & ~scores_UR.isnan()
    # An edge that costs less than nothing is as good as none; no score where none was tried.
    best_U = scores_UR.masked_fill(~tried_UR, 0).amax(1)
    best_U[~tried_UR.any(1)] = torch.nan
    return *by_layer(best_U, model.cfg.n_layers), named(model, scores_UR)


def _codes(model: Any, task: Task, options: Options, centred: bool = True) -> Found:
    task_codes = codes.of_task(model, task, options.sae, seed=options.seed, centred=centred)
    heads_LH = codes.only_in_clean(task_codes).unflatten(0, (model.cfg.n_layers, -1))
    pairs_KK = codes.pairs_only_in_clean(task_codes)
    n_heads = model.cfg.n_heads
    names = [f"a{number // n_heads}.h{number % n_heads}" for number in range(len(pairs_KK))]
    later = [(a, b) for b in range(len(names)) for a in range(b // n_heads * n_heads)]
    edges = [Edge(names[a], names[b], pairs_KK[a, b].item()) for a, b in later]
    return heads_LH, None, sorted(edges, key=lambda edge: -edge.score)


def _codes_raw(model: Any, task: Task, options: Options) -> Found:
    return _codes(model, task, options, centred=False)


def _random(model: Any, task: Task, options: Options) -> Found:
    generator = torch.Generator().manual_seed(options.seed)
    return torch.rand(model.cfg.n_layers, model.cfg.n_heads, generator=generator), None, None


def _layer_index(model: Any, task: Task, options: Options) -> Found:
    return (
        torch.arange(model.cfg.n_layers).float()[:, None].expand(-1, model.cfg.n_heads),
        None,
        None,
    )


METHODS: dict[str, Method] = {
    "eap-ig": Method(
        _eap_ig,
        32,
        "attribution of edges, gradients averaged from the corrupted to the clean input",
    ),
    "eap-ig-activations": Method(
        _eap_ig_activations, 32, "the same, averaged over each writer's own activation"
    ),
    "eap": Method(_eap, 32, "attribution of edges, gradients of the clean run"),
    "atp": Method(_atp, 32, "attribution of nodes, gradients of the clean run"),
    "codes": Method(
        _codes,
        250,
        "codes of a small SAE that only clean prompts show, each head's mean taken away",
    ),
    "codes-raw": Method(_codes_raw, 250, "the same on raw head outputs, as in the paper's code"),
    "acdc": Method(_acdc, 16, "greedy removal of edges, by the divergence it costs"),
    "patching": Method(_patching, 100, "exact: each node resampled by itself"),
    "random": Method(_random, 1, "baseline: random scores"),
    "layer-index": Method(_layer_index, 1, "baseline: later layers score higher"),
}


STOPPING = ("acdc", "patching")  # by one run for each edge or node: what a budget is for
FEATURES = "feature-circuit"  # scores features instead of heads: see feature_report


def method(name: str) -> Method:
    """The row of METHODS. Raises UsageError, listing them, for an unknown name."""
    if name == FEATURES:
        raise UsageError(
            f"{FEATURES} scores the features of SAEs: it is `feature_circuit`, not a method of "
            "`score`"
        )
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}: methods are {', '.join([*METHODS, FEATURES])}")
    return METHODS[name]


def score(model: Any, task: Task, method_name: str = "eap-ig", **options: Any) -> Scores:
    """Score every head, and where the method can every MLP and edge, of a model (a
    TransformerBridge) by a method of METHODS.

    options: fields of `Options`. Raises UsageError for an unknown method, for prompts without
    twins, and where the method cannot work on this model.

    >>> score(model, task("ioi", model, n=32)).heads.flatten().topk(3)
    """
    started, row = time.perf_counter(), method(method_name)
    check_twins(task)
    told = Options(**options)
    if told.stop is not None and method_name not in STOPPING:
        raise UsageError(f"{method_name} ends by itself: a budget is for {' and '.join(STOPPING)}")
    heads_LH, mlps_L, edges = row.run(model, task, told)
    if bool(heads_LH.isnan().all()):
        raise UsageError(f"the time was over before {method_name} measured a head: give it more")
    mlps_L, n_edges = None if mlps_L is None else mlps_L.cpu(), 0
    if edges is not None:
        n_edges = len(links(model)) if told.stop else len(edges)
    seconds = time.perf_counter() - started
    return Scores(method_name, heads_LH.cpu(), mlps_L, edges, seconds, n_edges)
