"""Sparse edits: turning one activation into another by changing a few features (Makelov et al.
2024, section 4.2).

Shapes: P prompts, C candidate features per prompt, D width, F features.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from saelab.evaluation.supervised.dictionary import Features


class Edit(NamedTuple):
    """An edit of every prompt's activation."""

    edited: Tensor
    """[P, D]"""
    changed: Tensor
    """[P] how many features changed"""
    magnitude: Tensor
    """[P] weight of what was removed; that of all features together is 1"""


def _candidates(source: Features, target: Features) -> tuple[Tensor, Tensor]:
    """Feature numbers [P, C] and whether each is a real candidate (its coefficient differs); others
    pad."""
    differs_PF = source.codes != target.codes
    width = max(1, int(differs_PF.sum(1).max()))
    chosen = differs_PF.to(torch.uint8).topk(width, dim=1)
    return chosen.indices, chosen.values.bool()


def greedy(acts_PD: Tensor, source: Features, target: Features, wanted_PD: Tensor, k: int) -> Edit:
    """Move acts towards wanted by giving at most k features their coefficient in `target` in place
    of that in `source`.

    At each step the feature whose switch leaves the least ||edited - wanted|| is switched; of the
    steps 0 to k, the nearest is kept. The true activation is edited, not its reconstruction. A
    feature active in both counts once.
    """
    index_PC, real_PC = _candidates(source, target)
    delta_PC = (target.codes - source.codes).gather(1, index_PC)
    step_PCD = delta_PC[..., None] * source.rows[index_PC]
    square_PC = step_PCD.square().sum(2)
    missing_PD = wanted_PD - acts_PD
    best_PD, best_P = torch.zeros_like(missing_PD), missing_PD.square().sum(1)
    used_PC, kept_PC = ~real_PC, torch.zeros_like(real_PC)
    moved_PD = torch.zeros_like(missing_PD)
    switched_PC = torch.zeros_like(real_PC)
    for _ in range(min(k, index_PC.shape[1])):
        # |r|^2 - |r - s|^2 = 2 r . s - |s|^2 of the rest r and each step s: no [P, C, D]
        # difference.
        gain_PC = 2 * torch.einsum("pcd,pd->pc", step_PCD, missing_PD - moved_PD) - square_PC
        pick_P1 = gain_PC.masked_fill(used_PC, -torch.inf).argmax(1, keepdim=True)
        free_P1 = ~used_PC.gather(1, pick_P1)
        # Where a prompt's candidates are used up, argmax picks a used one: that switches nothing.
        picked_PD = step_PCD[torch.arange(len(pick_P1)), pick_P1[:, 0]]
        moved_PD = moved_PD + torch.where(free_P1, picked_PD, 0)
        switched_PC = switched_PC.scatter(1, pick_P1, switched_PC.gather(1, pick_P1) | free_P1)
        used_PC = used_PC.scatter(1, pick_P1, True)
        # The least bad step may still lead away; the nearest of all steps is what counts.
        left_P = (missing_PD - moved_PD).square().sum(1)
        better_P = left_P < best_P
        best_P = torch.where(better_P, left_P, best_P)
        best_PD = torch.where(better_P[:, None], moved_PD, best_PD)
        kept_PC = torch.where(better_P[:, None], switched_PC, kept_PC)
    removed_PC = torch.where(kept_PC & (source.codes.gather(1, index_PC) != 0), -delta_PC, 0)
    return Edit(acts_PD + best_PD, kept_PC.sum(1), _weight(source, index_PC, removed_PC))


def _weight(source: Features, index_PC: Tensor, removed_PC: Tensor) -> Tensor:
    """sum_i (r_i u_i) . (x_hat - b) / ||x_hat - b||^2 [P]: 1 when everything that makes up x_hat is
    removed."""
    offset_PD = source.codes @ source.rows
    along_PC = torch.einsum("pcd,pd->pc", source.rows[index_PC], offset_PD)
    return (removed_PC * along_PC).sum(1) / offset_PD.square().sum(1).clamp_min(1e-20)
