"""New rows for dead features that no gradient of AuxK reaches, whose pre-activations are positive
nowhere.

Encoder rows are short and begin with the second moments of a usual feature: with rows of full
length, or moments of 0, whose first steps are three times the rate, new rows are thrown off the
data as the old ones were.

Shapes: B tokens, F features, A of them, D width in, E width out.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.sae import SAE

from .config import Config
from .dead import silent_longest

SHORT = 0.2  # length of a new encoder row, Bricken et al. 2023's share of the usual one


def due(config: Config, step: int) -> bool:
    """Whether dead features get new rows after that many steps: once per window, and not when the
    rate has begun to fall, which would leave them no time."""
    every = max(1, config.window // config.batch)
    return config.revive and step % every == 0 and step < (1 - config.decay) * config.n_steps


class Fresh(NamedTuple):
    """New rows for some features [A]."""

    W_enc: Tensor
    """[A, D]"""
    W_dec: Tensor
    """[A, E], of unit norm"""
    levels: Tensor
    """[A]: below the pre-activation at the token that the row comes from"""


@torch.no_grad()
def revive(run: Any, x_BD: Tensor, error_BE: Tensor) -> int:
    """Give new rows to the dead features that have a positive pre-activation at no token of the
    batch, where AuxK's gradient is 0: towards the errors of tokens drawn in proportion to their
    squared error; biases of 0, and a whole window to fire in. Returns their number."""
    dead_F = run.counters.silent_F >= run.counters.window
    if not bool(dead_F.any()):
        return 0
    sae, layout = run.sae, run.layout
    assert isinstance(sae, SAE)  # the only kind that `checks` lets through
    centred_BD = (x_BD if sae.transcoder else x_BD - sae.b_dec).to(sae.W_enc.dtype)
    k_aux = run.config.k_aux or x_BD.shape[1] // 2
    silent_A = silent_longest(run.counters.silent_F, dead_F, k_aux)
    mine_A = layout.mine(silent_A)
    pre_BA = centred_BD @ sae.W_enc[mine_A].T + sae.b_enc[mine_A]
    reached_F = torch.zeros_like(sae.b_enc, dtype=torch.int64)
    reached_F[mine_A] = ((pre_BA != 0) if sae.sparsify.signed else (pre_BA > 0)).sum(0)
    idle_A = silent_A[layout.fired(reached_F)[silent_A] == 0]
    if len(idle_A):
        seed = (run.config.seed << 32) + run.n_done
        tokens = (layout.every_token(centred_BD), layout.every_token(error_BE))
        fresh = fresh_rows(*tokens, len(idle_A), seed, sae.transcoder)
        _put(run, idle_A, Fresh(*(rows.to(sae.W_enc) for rows in fresh)))
    return len(idle_A)


def fresh_rows(
    centred_BD: Tensor, error_BE: Tensor, n: int, seed: int, transcoder: bool = False
) -> Fresh:
    """n new rows, each from a token: its error's direction for the decoder and, shorter, for the
    encoder; of a transcoder, whose encoder looks for it, the input's."""
    weight_B = error_BE.double().square().sum(1).cpu() + torch.finfo(torch.float64).tiny
    draw = torch.Generator().manual_seed(seed % 2**63)
    tokens_A = torch.multinomial(weight_B, n, replacement=n > len(weight_B), generator=draw)
    tokens_A = tokens_A.to(error_BE.device)
    W_dec_AE = torch.nn.functional.normalize(error_BE[tokens_A], dim=1)
    input_AD = centred_BD[tokens_A]
    sought_AD = torch.nn.functional.normalize(input_AD, dim=1) if transcoder else W_dec_AE
    W_enc_AD = SHORT * sought_AD
    levels_A = ((W_enc_AD * input_AD).sum(1) / 2).clamp_min(0)
    return Fresh(W_enc_AD, W_dec_AE, levels_A)


def _put(run: Any, features_A: Tensor, fresh: Fresh) -> None:
    """The rows that this rank holds of these features, in place; their silence begins anew."""
    mine_A = run.layout.mine(features_A)
    place_A = torch.searchsorted(features_A, mine_A + run.layout.part.start)
    new = {"W_enc": fresh.W_enc, "b_enc": torch.zeros_like(fresh.levels), "W_dec": fresh.W_dec}
    if run.sae.learns_levels:
        new["levels"] = fresh.levels
    more = run.optimiser.more()
    if "last" in more:  # their moments are of this step
        more["last"][mine_A] = run.n_done + 1
    for name, rows in new.items():
        # Not by `data`: what is computed from a weight sees by its version that it has changed.
        run.sae.get_parameter(name)[mine_A] = rows[place_A]
        first, second = run.optimiser.moments()[name]
        first[mine_A] = 0
        usual = run.layout.over_features(second.float().sum(0)) / run.config.features
        second[mine_A] = usual.to(second.dtype)
        if name in run.average:
            run.average[name][mine_A] = rows[place_A].float()
    run.counters.silent_F[features_A] = 0
