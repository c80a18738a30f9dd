"""Scores of heads and edges held against a circuit that a paper published, beside chance.

Chance is scores dealt out anew among the heads of each layer (edges: among those between the same
two layers), so that what the layers alone explain is no merit.

Shapes: E heads or edges, S draws.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from saelab import models
from saelab.analysis.circuits.heads.published import Published, named
from saelab.analysis.circuits.heads.score import Scores
from saelab.errors import UsageError
from saelab.statistics import over_seeds

DRAWS = 300
MEASURES = ("auc", "precision", "overlap")


class Candidates(NamedTuple):
    """What could be in the circuit."""

    names: list[Any]
    """E heads (layer, head) or edges (source, target)"""
    members_E: np.ndarray
    """which of them the paper has"""
    groups_E: np.ndarray
    """numbers of the sets within which chance deals scores out"""


def published(model: Any, name: str) -> Published:
    """The published circuit of a task. Raises UsageError for an unknown one, and for a model that
    is not the paper's."""
    paper, here = named(name), models.name_of(model)
    shape = (model.cfg.n_layers, model.cfg.n_heads)
    if here.rsplit("/", 1)[-1].lower() not in paper.models:
        raise UsageError(
            f"the published {name} circuit ({paper.source}) is one of {paper.models[0]}, and this "
            f"model is {here}: heads of another model have other roles; load {paper.models[0]}, or "
            "compare with this model's own by --truth measured"
        )
    if shape != paper.shape:
        layers, heads = paper.shape
        raise UsageError(
            f"{paper.models[0]} has {layers} layers of {heads} heads, and {here} {shape[0]} of "
            f"{shape[1]}: it is another model of that name"
        )
    return paper


def heads_of(paper: Published) -> Candidates:
    """Every head of the paper's model; those of one layer are a set."""
    layers, heads = paper.shape
    names = [(layer, head) for layer in range(layers) for head in range(heads)]
    there = set(paper.heads())
    members_E = np.array([name in there for name in names])
    return Candidates(names, members_E, np.array([layer for layer, _ in names]))


def edges_of(paper: Published, edges: Sequence[tuple[str, str]]) -> Candidates:
    """The edges of such kinds (head to head, MLP to logits, ...) as the paper lists: on others it
    may be silent though they are in its circuit. Edges between the same layers are a set."""
    kinds = {_kind(edge) for edge in paper.edges}
    names = [edge for edge in edges if _kind(edge) in kinds]
    there = set(paper.edges)
    members_E = np.array([name in there for name in names], dtype=bool)
    places = [(_place(source), _place(target)) for source, target in names]
    numbers = {place: number for number, place in enumerate(dict.fromkeys(places))}
    return Candidates(names, members_E, np.array([numbers[place] for place in places]))


def _kind(edge: tuple[str, str]) -> tuple[str, str]:
    source, target = edge
    return source[0], target[0]  # a head, an MLP, the embedding, the logits


def _place(node: str) -> str:
    """A node without its head: `a3.h1.q` and `a3.h2.q` stand side by side."""
    parts = node.split(".")
    return ".".join(part for part in parts if not part.startswith("h"))


def measures(sizes_E: np.ndarray, members_E: np.ndarray) -> np.ndarray:
    """[3] of MEASURES: the AUC of |score|, the share of members among as many of the largest as
    there are members, and those in both over those in either (Jaccard)."""
    order = np.arange(len(sizes_E))[None]
    return _dealt(sizes_E, members_E, order)[0]


def chance(candidates: Candidates, sizes_E: np.ndarray, seed: int = 0) -> np.ndarray:
    """[S, 3]: the same with the sizes dealt out anew within each set."""
    rng = np.random.default_rng(seed)
    groups_E = candidates.groups_E
    # Sorting by set and then at random leaves each set in its block, in a random order.
    home_E = np.argsort(groups_E, kind="stable")
    orders_SE = np.empty((DRAWS, len(sizes_E)), dtype=np.int64)
    for row_E in orders_SE:
        row_E[home_E] = np.lexsort((rng.random(len(groups_E)), groups_E))
    return _dealt(sizes_E, candidates.members_E, orders_SE)


def _dealt(sizes_E: np.ndarray, members_E: np.ndarray, orders_SE: np.ndarray) -> np.ndarray:
    """The measures [S, 3] where place e gets the size of number orders[s, e]."""
    from scipy.stats import rankdata

    n, n_others = int(members_E.sum()), int((~members_E).sum())
    top_E = np.zeros(len(sizes_E))
    top_E[np.argsort(-sizes_E, kind="stable")[:n]] = 1
    at_SN = orders_SE[:, members_E]
    # Mann and Whitney: the members' ranks, less what they are at least, over all pairs.
    auc_S = (rankdata(sizes_E)[at_SN].sum(1) - n * (n + 1) / 2) / (n * n_others)
    both_S = top_E[at_SN].sum(1)
    return np.stack([auc_S, both_S / n, both_S / (2 * n - both_S)], 1)


def against(repeated: Sequence[Scores], paper: Published, seed: int = 0) -> dict[str, Any]:
    """How well scores, one per repetition, agree with a published circuit: of heads and, where the
    method scores the inputs of heads apart, of edges. Every measure is an Estimate over
    repetitions, its null that of chance, whose middle 95% stand under `chance`.

    >>> against([score(model, task("ioi", model, seed=s), "eap") for s in range(3)], paper)
    """
    heads = heads_of(paper)
    sizes = [one.heads.nan_to_num(0).abs().flatten().double().numpy() for one in repeated]
    fields = {"source": paper.source, "heads": _held(heads, sizes, seed), "edges": None}
    fields["roles"] = _roles(paper, torch.stack([torch.from_numpy(one) for one in sizes]).mean(0))
    first = repeated[0].edges
    if first and any(edge.target.endswith(".q") for edge in first):
        tables = [{edge[:2]: abs(edge.score) for edge in one.edges or []} for one in repeated]
        every = sorted(set().union(*tables))
        edges = edges_of(paper, every)
        if 0 < edges.members_E.sum() < len(every):
            by_name = [np.array([table.get(e, 0.0) for e in edges.names]) for table in tables]
            fields["edges"] = _held(edges, by_name, seed)
    return fields


def _held(candidates: Candidates, sizes: Sequence[np.ndarray], seed: int) -> dict[str, Any]:
    members_E = candidates.members_E
    found_R3 = np.stack([measures(one_E, members_E) for one_E in sizes])
    chance_S3 = np.concatenate([chance(candidates, one_E, seed) for one_E in sizes])
    low_3, high_3 = np.percentile(chance_S3, [2.5, 97.5], axis=0)
    fields: dict[str, Any] = {"members": int(members_E.sum()), "of": len(members_E), "chance": {}}
    for number, name in enumerate(MEASURES):
        null = float(chance_S3[:, number].mean())
        fields[name] = over_seeds(found_R3[:, number], null).cut(0, 1).as_dict()
        fields["chance"][name] = [float(low_3[number]), float(high_3[number])]
    return fields


def _roles(paper: Published, mean_E: torch.Tensor) -> dict[str, dict[str, int]]:
    """For each role how many of its heads are among the largest mean scores, as many as the paper
    has heads."""
    n_heads = paper.shape[1]
    best = mean_E.argsort(descending=True, stable=True)[: len(paper.heads())].tolist()
    chosen = {divmod(number, n_heads) for number in best}
    return {
        role: {"heads": len(heads), "among_the_best": len(chosen & set(heads))}
        for role, heads in paper.groups.items()
    }
