"""`saelab.graph`: the attribution graph of a prompt as DataFrames, drawn, and held to
interventions.

Shapes: M nodes, K logit nodes.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saelab import sets
from saelab.errors import UsageError

from ..browser.graph import about, payload
from .shown import Figure, Shown, frame

if TYPE_CHECKING:
    import pandas

    from saelab.analysis.circuits.graphs.report import Traced

KINDS = ("node", "kind", "layer", "position", "token", "feature", "activation", "influence")


def graph(
    runs: Path | str | Sequence[Path | str],
    text: str,
    answers: Sequence[str] = (),
    model: Any = None,
    nodes: float = 0.8,
    edges: float = 0.98,
) -> "Graph":
    """The attribution graph of what a model says after a text.

    runs: of transcoders (or SAEs), or a folder of such runs. answers: next tokens that are outputs
    of the graph whatever their probability. model: where it is not what the runs' records name.
    nodes, edges: shares of the influence on the output that what is kept carries. Raises UsageError
    as `saelab graph` does.

    >>> traced = saelab.graph("runs/transcoders", "When Anna and Ben left, Ben gave a key to")
    >>> traced.ablate(traced.nodes.node[0])
    """
    from saelab.analysis.circuits.graphs import report

    named = [runs] if isinstance(runs, Path | str) else runs
    opened = sets.open_set(named, model, needs=("model",), dtype="float32")
    model, saes = opened[0].model, [one.sae for one in opened]
    plan = report.Plan(node_share=nodes, edge_share=edges, n_ablated=0)
    prompt = report.prompt(model, text, answers)
    return Graph(model, report.trace(model, saes, prompt, plan, "prompt"))


class Graph:
    """See `graph`. A notebook displays how much of the output it explains."""

    def __init__(self, model: Any, traced: "Traced") -> None:
        self.model, self.fields, self._traced = model, traced.fields, traced

    def __repr__(self) -> str:
        scores = self.fields["scores"]
        replaced = f"replacement {scores['replacement']:.2f}, floor {scores['floor']:.2f}"
        return f"{len(self.fields['nodes'])} nodes to {self.fields['next_token']!r}: {replaced}"

    def _repr_html_(self) -> str:
        return Shown(about(self.fields), repr(self))._repr_html_()

    @cached_property
    def nodes(self) -> "pandas.DataFrame":
        """What is kept, features and errors of most influence first; influence: the share that a
        node has together with those of more."""
        tokens, rows = self.fields["metadata"]["prompt_tokens"], []
        for node in self.fields["nodes"]:
            rows.append(
                {
                    "node": node["node_id"],
                    "kind": node["feature_type"],
                    "layer": node["layer"],
                    "position": node["ctx_idx"],
                    "token": node["clerp"] or tokens[node["ctx_idx"]],
                    "feature": node.get("number"),
                    "activation": node["activation"],
                    "influence": node["influence"],
                }
            )
        made = frame(rows).astype({"feature": "Int64"})[list(KINDS)]
        return made.sort_values("influence", ignore_index=True)

    @cached_property
    def links(self) -> "pandas.DataFrame":
        """What is kept of what a source adds to its target, largest first."""
        made = frame(self.fields["links"])
        return made.sort_values("weight", key=abs, ascending=False, ignore_index=True)

    def inputs(self, node: str) -> "pandas.DataFrame":
        """The links into a node, with what their sources are."""
        into = self.links[self.links.target == node]
        return into.merge(self.nodes, left_on="source", right_on="node").drop(columns="node")

    def ablate(self, *nodes: str) -> "pandas.DataFrame":
        """What setting features to 0, all at once, does to each output's logit (minus the mean
        logit): foretold by the graph, and measured as attribution assumes (held), in the free
        replacement model and in the model itself. Raises UsageError for what is no feature.

        >>> traced.ablate("2_417_13")
        """
        from saelab.analysis.circuits.graphs import intervention
        from saelab.analysis.circuits.graphs.document import names
        from saelab.analysis.circuits.graphs.graph import LOGIT

        drawn, ids = self._traced.graph, names(self._traced.graph, self.model.cfg.n_layers)
        if unknown := [name for name in nodes if name not in ids]:
            raise UsageError(f"no node {unknown[0]!r}: `.nodes` lists what there is")
        ablated_1M = torch.zeros(1, len(ids), dtype=torch.bool)
        ablated_1M[0, [ids.index(name) for name in nodes]] = True
        effects = intervention.check(self.model, self._traced.local, drawn, ablated_1M)
        outputs_K = drawn.nodes.number[drawn.nodes.kind == LOGIT]
        columns: dict[str, Any] = {
            "output": [self.model.tokenizer.decode([token]) for token in outputs_K.tolist()],
            "foretold": effects.predicted[0].numpy(),
        }
        columns |= {name: change_1K[0].numpy() for name, change_1K in effects.measured.items()}
        return frame(None, **columns)

    def picture(self, n_links: int = 150) -> Figure:
        """Layers upward, positions along, with the n links of most weight."""
        from ..browser.charts_of_graphs import drawn

        shown = payload(self.fields, {}, lambda *_: "", len(self.fields["nodes"]))
        return Figure(drawn(shown, n_links))
