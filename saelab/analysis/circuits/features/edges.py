"""Edges of a feature circuit: how much of a node's effect passes straight to another node, or to
the metric.

Source: Marks et al. 2024, section 3.2 and appendix A (edge weights with stop-gradients on the nodes
in between). Shapes: P prompts, T positions, D width, F features, N pairs, M nodes.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.analysis.circuits.features.effects import Change, Effects, Nodes, record
from saelab.analysis.parts import Site, fired
from saelab.code import Code
from saelab.kernels import sddmm
from saelab.tasks import Task, measure


class Trace(NamedTuple):
    """A run that is cut at every site: each leaf, equal to the activation it stands for less what a
    skip adds to it, is all that later sites can depend on.

    leaves: [P, T, D] per site. codes: per site, values differentiable in earlier leaves. errors:
    [P, T, D] per site, likewise. logits [P, T, V]: the model's own.
    """

    leaves: list[Tensor]
    codes: list[Code]
    errors: list[Tensor]
    logits: Tensor


def trace(model: Any, tokens_PT: Tensor, sites: list[Site]) -> Trace:
    """Run the prompts with a cut at every site. A leaf is reconstruction plus error, so that the
    output stays what it was; a skip stays a path."""
    passing = {hook: way for site in sites for hook, way in site.passing().items()}
    leaves = []
    for site, (x_PTD, acts_PTE) in zip(sites, record(model, tokens_PT, sites), strict=True):
        skipped = [way.of(x_PTD) for way in site.passing().values()]
        leaves.append((acts_PTE - sum(skipped)).requires_grad_())
    names = [name for site in sites for name in (site.read, site.write)]
    given = {site.write: leaf for site, leaf in zip(sites, leaves, strict=True)}
    codes, errors = [], []
    with torch.enable_grad():
        held, read = frozen.Frozen(tokens_PT, {}), [*names, frozen.LOGITS]
        seen = frozen.run(model, held, given, read, passing=passing)
        for site in sites:
            code = fired(site.sae.encode(seen[site.read]), tokens_PT.shape[1])
            codes.append(code)
            decoded_PTE = (site.sae.decode(code) - site.sae.b_dec).view_as(seen[site.write])
            skipped = [way.of(seen[site.read]) for way in site.passing().values()]
            errors.append(seen[site.write] - decoded_PTE - sum(skipped))
    return Trace(leaves, codes, errors, seen[frozen.LOGITS])


def _table(nodes: Nodes, number: int, length: int, n_features: int) -> Tensor:
    """[T, F + 1]: which node a feature (last column: the error) at a position belongs to; M where
    to none."""
    table = torch.full((length, n_features + 1), len(nodes.effect))
    for i in (nodes.site == number).nonzero().flatten().tolist():
        position = int(nodes.position[i])
        table[
            slice(None) if position < 0 else position, int(nodes.feature[i]) % (n_features + 1)
        ] = i
    return table


def _gather(table_TF: Tensor, code: Code, error_PT: Tensor, n_nodes: int) -> Tensor:
    """Sums by node [M] of a code's values and of errors [P, T]."""
    sums = code.values.new_zeros(n_nodes + 1)
    sums = sums.index_add(0, table_TF[code.tokens % len(table_TF), code.features], code.values)
    return sums.index_add(0, table_TF[:, -1].expand(error_PT.shape).flatten(), error_PT.flatten())[
        :n_nodes
    ]


def edges(
    model: Any,
    task: Task,
    sites: list[Site],
    nodes: Nodes,
    changes: list[Change],
    effects_by_site: list[Effects],
) -> Tensor:
    """[M + 1, M]: how much of the effect of node [column] passes straight to node [row], in the
    last row straight to the metric.

    d metric / d downstream x d downstream / d upstream x change of the upstream node, all other
    sites held, mean over the prompts of `task`: the first of those that changes and found (see
    `effects`) are about. A feature that is off passes nothing on.
    """
    (n_prompts, length), n_nodes = task.clean.shape, len(nodes.effect)
    tables = [
        _table(nodes, number, length, site.sae.n_features).to(site.sae.W_dec.device)
        for number, site in enumerate(sites)
    ]
    cut = trace(model, task.clean, sites)
    moved = [Change(one.code.rows(0, n_prompts * length), one.error[:n_prompts]) for one in changes]

    def upstream(total: Tensor) -> Tensor:
        """[M]: the gradient of `total` at every leaf times the change of its nodes."""
        sums = cut.logits.new_zeros(n_nodes)
        gradients = torch.autograd.grad(total, cut.leaves, retain_graph=True, allow_unused=True)
        for site, table, part, gradient in zip(sites, tables, moved, gradients, strict=True):
            if gradient is not None:
                passed_N = part.code.values * sddmm(
                    gradient.flatten(0, 1).contiguous(), site.sae.W_dec.detach(), part.code
                )
                sums += _gather(
                    table, part.code.with_values(passed_N), (gradient * part.error).sum(2), n_nodes
                )
        return sums / n_prompts

    rows = cut.logits.new_zeros(n_nodes + 1, n_nodes)
    for number, (site, table, code) in enumerate(zip(sites, tables, cut.codes, strict=True)):
        gradient_PTD = effects_by_site[number].gradient[:n_prompts]
        slopes_N = sddmm(gradient_PTD.flatten(0, 1), site.sae.W_dec.detach(), code)
        with torch.enable_grad():
            weighted = code.with_values(code.values * slopes_N)
            sums = _gather(table, weighted, (gradient_PTD * cut.errors[number]).sum(2), n_nodes)
        for i in (nodes.site == number).nonzero().flatten().tolist() if sums.requires_grad else []:
            rows[i] = upstream(sums[i])
    rows[-1] = upstream(measure(task, cut.logits).sum())
    return rows.cpu()
