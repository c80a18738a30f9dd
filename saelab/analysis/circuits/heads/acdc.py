"""ACDC: walk from the logits to the input and drop every edge whose loss changes the output by less
than a threshold.

Conmy et al. 2023, section 4. A dropped edge carries its value on the corrupted twin; the change is
KL(model || circuit) at the last position, in nats. The paper ranks nodes by the largest threshold
that keeps them, which takes a search for each threshold. Here one search ranks them by what their
best edge cost when it was tried: the threshold that this edge would have survived.

Shapes: P prompts, T positions, D width, U writers, R readers, G readers at one hook, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis.circuits.heads import attribution_patching
from saelab.analysis.circuits.heads.links import Link, Stop, blank, likely_first, links, until
from saelab.analysis.circuits.heads.patching import Entering
from saelab.analysis.circuits.heads.stream import (
    Hook,
    Site,
    by_head,
    run_from,
    sites,
    split_inputs,
    written,
)
from saelab.models import losses, running
from saelab.tasks import Task

THRESHOLD = 0.01


class Search(NamedTuple):
    """What a search found."""

    scores: Tensor
    """[U, R] nats that dropping the edge cost when it was tried; 0 for those dropped untried
    because nothing read their reader any more; NaN for those that the time did not reach"""
    kept: Tensor
    """[U, R] the edges of the circuit, among them those not reached"""
    divergence: float
    """of the circuit, in nats"""


class _State:
    """A model with some edges dropped, entered at any layer before which none are."""

    def __init__(self, model: Any, task: Task) -> None:
        self.model, self.task, self.sites = model, task, sites(model)
        self.clean_UPTD, self.corrupted_UPTD = (
            written(model, task.clean),
            written(model, task.corrupted),
        )
        self.kept = torch.cat([_below(len(self.clean_UPTD), site) for site in self.sites], 1).to(
            self.clean_UPTD.device
        )
        self.target_PV = running.logits(model, task.clean, last=True)
        self.first = [sum(site.width for site in self.sites[:i]) for i in range(len(self.sites))]

    def divergence(self, layer: int, stream_PTD: Tensor) -> float:
        """KL(model || circuit), mean over prompts; nothing before `layer` may have been dropped."""
        missing_UPTD = self.corrupted_UPTD - self.clean_UPTD
        edits = []
        for site, first in zip(self.sites, self.first, strict=True):
            if site.layer >= layer:
                edits.append(self._reading(site, first, missing_UPTD))
                edits += self._writing(site, missing_UPTD)
        circuit_PV = run_from(self.model, layer, stream_PTD, edits)
        return float(losses.kl(self.target_PV, circuit_PV).mean())

    def _reading(self, site: Site, first: int, missing_UPTD: Tensor) -> Hook:
        """An edit: dropped writers are read with their corrupted value."""

        def edit(acts: Tensor) -> Tensor:
            dropped_UG = ~self.kept[: site.n_writers, first : first + site.width]
            if not dropped_UG.any():
                return acts
            change = torch.einsum(
                "ug,uptd->ptgd", dropped_UG.to(acts.dtype), missing_UPTD[: site.n_writers]
            )
            return acts + change.reshape(acts.shape)

        return site.hook, edit

    def _writing(self, site: Site, missing_UPTD: Tensor) -> list[Hook]:
        """Edits that note what the layer's writers now write; its k and q sites add none."""
        if site.part not in ("v", "mlp"):
            return []
        n_heads = self.model.cfg.n_heads
        at = 1 + site.layer * (n_heads + 1) + (n_heads if site.part == "mlp" else 0)
        end = at + (1 if site.part == "mlp" else n_heads)

        def note(acts: Tensor) -> None:
            now = acts[None] if site.part == "mlp" else by_head(self.model, site.layer, acts)
            missing_UPTD[at:end] = self.corrupted_UPTD[at:end] - now

        return [
            (f"blocks.{site.layer}.{'hook_mlp_out' if site.part == 'mlp' else 'attn.hook_z'}", note)
        ]


def _below(n_writers: int, site: Site) -> Tensor:
    return (torch.arange(n_writers) < site.n_writers)[:, None].expand(n_writers, site.width).clone()


@torch.no_grad()
def search(
    model: Any, task: Task, threshold: float = THRESHOLD, stop: Stop | None = None
) -> Search:
    """Walk the readers from the logits down, and each one's writers from the last to the input.

    threshold: nats below which an edge is dropped. stop: a budget, under which the edges are tried
    by falling attribution (EAP) instead, so that the time goes to the likeliest ones.
    """
    state, now = _State(model, task), 0.0
    every = links(model)
    scores = blank(every, len(state.kept))  # set one by one: on the CPU
    streams, lowest = Entering(model, task), model.cfg.n_layers
    with split_inputs(model):
        for site, reader, column, writer in until(stop, _order(model, task, every, stop)):
            state.kept[writer, column] = False
            if not _is_read(state, site, reader):
                scores[writer, column] = 0
                continue
            # Before the first layer with a dropped edge everything is as in the clean run.
            enter = min(lowest, site.layer)
            new = state.divergence(enter, streams[enter])
            scores[writer, column] = new - now
            if new - now < threshold:
                now, lowest = new, enter
            else:
                state.kept[writer, column] = True
    return Search(scores, state.kept, now)


def _order(model: Any, task: Task, every: list[Link], stop: Stop | None) -> list[Link]:
    if stop is not None:
        return likely_first(every, attribution_patching.edge_scores(model, task).mean(0))
    # Sites from the last, told by their first column; their readers as they come; their writers
    # from the last.
    return sorted(every, key=lambda link: (link.reader - link.column, link.column, -link.writer))


def _is_read(state: _State, site: Site, number: int) -> bool:
    """Whether anything in the circuit still reads what this reader's node writes."""
    if site.part == "logits":
        return True
    n_heads = state.model.cfg.n_heads
    at = 1 + site.layer * (n_heads + 1)
    if site.part == "mlp":
        return bool(state.kept[at + n_heads].any())
    per_reader = n_heads // site.width  # heads that share a key or value head
    return bool(state.kept[at + number * per_reader : at + (number + 1) * per_reader].any())
