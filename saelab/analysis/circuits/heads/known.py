"""A circuit to compare scores with, measured on this model.

Shapes: L layers, H heads.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis.circuits.heads import agreement, truth
from saelab.analysis.circuits.heads.ablation import Setting
from saelab.statistics import Estimate, over_seeds

LEVEL = 0.05  # of m(model) - m(empty): the effect from which on a head belongs to the circuit


class Known(NamedTuple):
    """A circuit to compare with."""

    levels: dict[float, tuple[Tensor, int]]
    """level -> (members [L, H] bool, number of undecided heads)"""
    effects: Tensor | None
    """[L, H], or None"""
    about: dict[str, Any]
    """what the report says of it"""


def measured(held_out: Setting) -> Known:
    """The circuit by exhaustive resampling, at each of truth.LEVELS."""
    measured_truth = truth.measure_all(held_out, ("resample",))
    effects = measured_truth.effects["resample"]
    at = {level: truth.members(effects, level) for level in truth.LEVELS}
    levels = {
        level: (members.heads, int(members.undecided_heads.sum())) for level, members in at.items()
    }
    rounded = [[[round(x, 6) for x in head] for head in layer] for layer in effects.heads.tolist()]
    about = {
        "kind": "measured",
        "ablation": "resample",
        "seconds": measured_truth.seconds,
        "effects": rounded,
    }
    return Known(levels, effects.heads[..., 0], about)


def compared(
    each: list[Tensor], known: Known | None, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields that compare scores [L, H], one per repetition, with a known circuit, and their
    intervals."""
    names = ("auc", "average_precision", "auc_layer_index", "auc_random")
    if known is None:
        return {name: None for name in names} | {"truth": None}, {}
    members_LH = known.levels[LEVEL][0]
    repeated = [agreement.agreement(scores_LH, members_LH) for scores_LH in each]
    fields, intervals = {}, {}
    for name in names[:2]:
        values = [getattr(one, name) for one in repeated]
        over_repeats = Estimate(None) if None in values else over_seeds(values).cut(0, 1)
        fields[name], *intervals[name] = over_repeats[:3]
    random = agreement.random_auc(members_LH, seed) or Estimate(None)
    fields["auc_layer_index"] = agreement.layer_index_auc(members_LH)
    fields["auc_random"], *intervals["auc_random"] = random[:3]
    fields["truth"] = {
        **known.about,
        "level": LEVEL,
        "levels": [_level(each, known, level) for level in known.levels],
    }
    mean_LH, effects_LH = torch.stack(each).mean(0), known.effects
    fields["truth"]["rank_correlation"] = (
        None if effects_LH is None else agreement.rank_correlation(mean_LH, effects_LH)
    )
    return fields, intervals


def _level(each: list[Tensor], known: Known, level: float) -> dict[str, Any]:
    members_LH, undecided = known.levels[level]
    repeated = [agreement.agreement(scores_LH, members_LH) for scores_LH in each]
    row: dict[str, Any] = {
        "level": level,
        "undecided": undecided,
        "members": members_LH.nonzero().tolist(),
    }
    for name in ("auc", "average_precision"):
        values = [getattr(one, name) for one in repeated]
        row[name] = None if None in values else sum(values) / len(values)
    return row
