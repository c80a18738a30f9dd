"""Attribution graphs of several prompts, and how faithful they are.

Shapes: T positions.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab import joint
from saelab.analysis.circuits.graphs import faithfulness, influence, intervention, supernodes
from saelab.analysis.circuits.graphs.apart import MLP_OUT, Local, take_apart
from saelab.analysis.circuits.graphs.attended import attend
from saelab.analysis.circuits.graphs.document import Words, document, layer_of
from saelab.analysis.circuits.graphs.graph import FEATURE, LOGIT, Graph, graph
from saelab.coder import Coder
from saelab.errors import UsageError
from saelab.statistics import over_documents, weights
from saelab.tasks.reading import Reader

MLPS = (MLP_OUT, "hook_mlp_out")
SCORES = influence.Scores._fields


class Prompt(NamedTuple):
    """A text whose next token is to be explained."""

    text: str
    tokens: Tensor
    """[T] ids, the beginning-of-text token first where the tokenizer has one"""
    answers: Sequence[int] = ()
    """ids that are right, which are logit nodes whatever their probability"""


class Plan(NamedTuple):
    """How graphs are made."""

    scan: str = "saelab"
    """the name of the set of dictionaries"""
    node_share: float = influence.NODE_SHARE
    """of the influence that the kept nodes carry"""
    edge_share: float = influence.EDGE_SHARE
    """of it that the kept edges carry"""
    n_ablated: int = faithfulness.FEATURES
    """features ablated one by one in each graph, 0 for none"""
    seed: int = 0
    """of the controls"""
    conditions: Mapping[str, intervention.Condition] = intervention.COLUMNS
    """in which ablations are measured"""
    firings: supernodes.Firings | None = None
    """by which features are grouped into supernodes; None: not at all"""
    n_attended: int = 0
    """nodes of each graph whose strongest attention edge is split, 0 for none"""


class Traced(NamedTuple):
    """A prompt's graph."""

    fields: dict[str, Any]
    """of its document; see `document.document`"""
    places: list[str]
    """hooks that features and errors are at"""
    trials: faithfulness.Trials | None
    """None where nothing was ablated"""
    local: Local
    """the prompt taken apart"""
    graph: Graph
    """all of it, not only what is kept"""
    refusal: str = ""
    """why no attention score was split, where that cannot be"""


def prompt(model: Any, text: str, answers: Sequence[str] = ()) -> Prompt:
    """A text in tokens; nothing in it is a special token. Raises UsageError for an empty text, for
    one that the model's context does not hold, and for answers that are not one token in place."""
    reader = Reader(model.tokenizer)
    ids = [*reader.bos, *reader.ids([text])[0]]
    if len(ids) == len(reader.bos):
        raise UsageError("the prompt is empty: give a text whose next token is to be explained")
    if len(ids) > model.cfg.n_ctx:
        context = f"the model's context {model.cfg.n_ctx}"
        raise UsageError(f"the prompt has {len(ids)} tokens, {context}: {text[:60]!r}")
    tokens_T = torch.tensor(ids, device=model.cfg.device)
    return Prompt(text, tokens_T, reader.following(text, answers) if answers else ())


def trace(model: Any, saes: Sequence[Coder], one: Prompt, plan: Plan, slug: str) -> Traced:
    """The graph of one prompt, pruned and scored.

    >>> traced = trace(model, transcoders, prompt(model, "Anna gave it to"), Plan(), "gift")
    >>> traced.fields["scores"]["replacement"]
    """
    started = time.perf_counter()
    local = take_apart(model, one.tokens, saes)
    drawn = graph(model, local, one.answers)
    core = influence.prune(drawn, plan.node_share, plan.edge_share)
    seconds = time.perf_counter() - started
    trials = None
    if plan.n_ablated and (drawn.nodes.kind == FEATURE).any():
        how = (plan.n_ablated, plan.seed, plan.conditions)
        trials = faithfulness.trials(model, local, drawn, *how)
    tokenizer = model.tokenizer
    outputs_K = drawn.nodes.number[drawn.nodes.kind == LOGIT]
    words = Words(
        slug,
        plan.scan,
        one.text,
        [tokenizer.decode([token]) for token in one.tokens.tolist()],
        [tokenizer.decode([token]) for token in outputs_K.tolist()],
        model.cfg.n_layers,
    )
    given = int(local.logits.argmax())
    groups = supernodes.Groups([], 0.0, 0.0)
    if plan.firings:
        groups = supernodes.supernodes(drawn, core, plan.firings, plan.seed)
    fields, refusal = document(drawn, core, words, plan.node_share, groups.nodes), ""
    if plan.n_attended:
        try:
            fields = attend(model, local, drawn, core, words, fields, plan.n_attended)
        except UsageError as error:
            refusal = f"why heads attend is not told: {error}"
    fields |= {
        "scores": influence.scores(drawn)._asdict(),
        "n_features": int((drawn.nodes.kind == FEATURE).sum()),
        "n_nodes": len(drawn.nodes.kind),
        "n_edges": int((drawn.edges != 0).sum()),
        "next_token": tokenizer.decode([given]),
        "answered": given in one.answers if one.answers else None,
        "seconds": seconds,
    }
    if plan.firings:
        fields["grouped"] = {"share": groups.share, "null": groups.null}
    return Traced(fields, drawn.places, trials, local, drawn, refusal)


def report(
    model: Any,
    saes: Sequence[Coder],
    prompts: Sequence[Prompt],
    plan: Plan,
    each: Callable[[Traced], None] = lambda _: None,
) -> dict[str, Any]:
    """The scores and the faithfulness of the graphs of all prompts, with 95% intervals over
    prompts; `each` is given every graph as it is made.

    >>> fields = report(model, transcoders, [prompt(model, "Anna gave it to")], Plan())
    """
    rows, trials, places = [], [], []
    refusals: list[str] = []
    for number, one in enumerate(prompts):
        traced = trace(model, saes, one, plan, f"prompt-{number}")
        each(traced)
        places = traced.places
        trials += [traced.trials] if traced.trials else []
        refusals += [traced.refusal] if traced.refusal else []
        rows.append({name: traced.fields[name] for name in ROW if name in traced.fields})
        rows[-1] |= {"slug": traced.fields["metadata"]["slug"], "prompt": one.text}
    return {
        "prompts": rows,
        "scores": _means([row["scores"] for row in rows], plan.seed),
        **_grouped([row.pop("grouped") for row in rows if "grouped" in row], plan),
        "faithfulness": _columns(trials, plan.seed),
        "places": places,
        "notes": [*_missing(model, saes), *_unanswered(rows), *refusals[:1]],
    }


ROW = ("scores", "n_features", "n_nodes", "n_edges", "next_token", "answered", "seconds", "grouped")


def _means(scores: list[dict[str, float]], seed: int) -> dict[str, Any]:
    weights_RP = weights(len(scores), seed)
    means = {}
    for name in SCORES:
        sums = np.array([[row[name], 1.0] for row in scores])
        means[name] = over_documents(sums, lambda s: s[..., 0] / s[..., 1], weights_RP).as_dict()
    return means


def _grouped(shares: list[dict[str, float]], plan: Plan) -> dict[str, Any]:
    """The share of features in supernodes, where there are any."""
    if not shares or plan.firings is None:
        return {}
    sums = np.array([[one["share"], 1.0] for one in shares])
    null = float(np.mean([one["null"] for one in shares]))
    drawn = weights(len(shares), plan.seed)
    grouped = over_documents(sums, lambda s: s[..., 0] / s[..., 1], drawn, null).as_dict()
    rule = {"jaccard": supernodes.LEAST, "tokens": plan.firings.n_tokens}
    return {"supernodes": {**rule, "grouped": grouped}}


def _columns(trials: list[faithfulness.Trials], seed: int) -> dict[str, Any]:
    if not trials:
        return {}
    columns = faithfulness.agreement(trials, seed)
    n_ablated = sum(len(one.features) for one in trials)
    table = {
        name: {field: estimate.as_dict() for field, estimate in column._asdict().items()}
        for name, column in columns.items()
    }
    return {"n_ablated": n_ablated, **table}


def _missing(model: Any, saes: Sequence[Coder]) -> list[str]:
    """A sentence where the set leaves layers out."""
    targets = [hook for sae in saes if sae.transcoder for hook in joint.parts(sae.origin.target)]
    explained = {layer_of(hook) for hook in targets if hook.endswith(MLPS)}
    lacking = [str(n) for n in range(model.cfg.n_layers) if n not in explained]
    if not lacking or not explained:
        return []
    where = f"layer {lacking[0]}" if len(lacking) == 1 else f"layers {', '.join(lacking)}"
    return [f"no transcoder for {where}: the MLP there is traced as error"]


def _unanswered(rows: list[dict[str, Any]]) -> list[str]:
    wrong = [row for row in rows if row["answered"] is False]
    if not wrong:
        return []
    first = wrong[0]
    return [
        f"{len(wrong)} of {len(rows)} prompts are not answered as given, such as "
        f"{first['prompt']!r}, which the model continues with {first['next_token']!r}"
    ]
