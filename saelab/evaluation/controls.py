"""SAEs that learned nothing, or half of it: what a metric must tell a trained SAE from.

Random SAEs come close to trained ones in many metrics (2602.14111; Makelov et al. 2024, arXiv
2405.08366, for frozen decoders). Shapes: B tokens, F features, D width.
"""

import copy
from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from saelab import scaling
from saelab.activations import Cache
from saelab.coder import Coder
from saelab.cross_layer import CrossLayerTranscoder
from saelab.errors import UsageError
from saelab.evaluation.references import Reconstruct
from saelab.evaluation.synthetic import World
from saelab.matching import random_rows
from saelab.origin import Origin
from saelab.sae import SAE
from saelab.sparsify import Choice, Threshold

L0_TOKENS = 4096  # on which the L0 is measured
BISECTIONS = 24  # of the number that levels are moved by
ORACLE_LEVEL = 0.2


@torch.no_grad()
def l0(sae: Coder, x_BD: Tensor) -> float:
    """Pairs per token with non-zero value that the SAE spends on activations."""
    return float((sae.encode(x_BD).values != 0).sum()) / len(x_BD)


def measured_l0(sae: Coder, cache: Cache, seed: int = 0) -> float:
    """L0 on a sample of the training tokens of the SAE's hook: what its references and controls may
    spend."""
    return l0(sae, sample(sae, cache, seed))


def sample(sae: Coder, cache: Cache, seed: int = 0) -> Tensor:
    """[B, D]: the training tokens of the SAE's hook on which its L0 is measured."""
    n_tokens = min(L0_TOKENS, cache.n_tokens())
    return next(cache.batches(sae.origin.hook, n_tokens, seed)).to(sae.b_dec)


def random_init(sae: SAE, seed: int, l0: float) -> SAE:
    """An untrained SAE of the same shape, decoder bias and skip: random unit decoder rows, encoder
    tied to them, a token budget of the measured l0 (levels of other weights would mean nothing).

    >>> untrained = random_init(sae, seed=1, l0=measured_l0(sae, cache))
    """
    twin = SAE(
        sae.d_model,
        sae.n_features,
        Choice(max(1, round(l0)), signed=sae.sparsify.signed),
        d_out=len(sae.b_dec),
        transcoder=sae.transcoder,
        skip=sae.W_skip is not None,
        seed=seed,
    ).to(sae.W_dec)
    twin.b_dec.data.copy_(sae.b_dec)
    if twin.W_skip is not None and sae.W_skip is not None:
        twin.W_skip.data.copy_(sae.W_skip)
    twin.origin = sae.origin
    return twin


def untrained(sae: Coder, cache: Cache, seed: int = 0) -> Coder:
    """`random_init` at the SAE's L0 on its cache, of a seed that the SAE itself was not made
    from."""
    make = random_layers if isinstance(sae, CrossLayerTranscoder) else random_init
    return make(sae, seed + 12345, measured_l0(sae, cache, seed))  # type: ignore[arg-type]


def random_layers(clt: CrossLayerTranscoder, seed: int, l0: float) -> CrossLayerTranscoder:
    """`random_init` of a cross-layer transcoder, the L0 shared out among its layers."""
    n_layers = clt.n_layers
    form = Choice(max(1, round(l0 / n_layers)), signed=clt.sparsify.signed)
    sizes = (n_layers, clt.width, clt.n_features // n_layers)
    twin = CrossLayerTranscoder(*sizes, form, d_out=clt.d_out // n_layers, seed=seed)
    twin.b_dec.data.copy_(clt.b_dec)
    twin.origin = clt.origin
    return twin.to(clt.b_dec)


def permuted_decoder(sae: Coder, seed: int = 0) -> Coder:
    """The SAE with its decoder rows in random order: the same code, each latent writing what
    another one means."""
    twin = copy.deepcopy(sae)
    draw = torch.Generator().manual_seed(seed)
    for layer in twin.layers:
        order_F = torch.randperm(len(layer.W_dec), generator=draw)
        layer.W_dec.data.copy_(layer.W_dec.data[order_F])
    return twin


@torch.no_grad()
def random_directions(sae: SAE, seed: int = 0) -> SAE:
    """The SAE with its decoder rows replaced by random ones of the same lengths: the same code,
    each latent writing what nothing means."""
    twin = copy.deepcopy(sae)
    rows_FE = random_rows(sae.n_features, sae.W_dec.shape[1], seed).to(sae.W_dec)
    twin.W_dec.data.copy_(rows_FE * sae.W_dec.norm(dim=1, keepdim=True))
    return twin


def shuffled_code(sae: SAE, seed: int = 0) -> Reconstruct:
    """Reconstructions from the code of another token of the same piece: L0, values and densities
    are the SAE's, only not of this token."""
    generator = torch.Generator().manual_seed(seed)

    def reconstruct(x_ND: Tensor) -> tuple[Tensor, Tensor, None]:
        other_ND = x_ND[torch.randperm(len(x_ND), generator=generator).to(x_ND.device)]
        x_hat_ND, code = sae.reconstruct(other_ND)
        x_hat_ND = x_hat_ND - sae.base(other_ND) + sae.base(x_ND)
        fired_N = torch.bincount(code.tokens[code.values != 0], minlength=len(x_ND))
        return x_hat_ND, fired_N, None

    return reconstruct


def oracle(world: World, origin: Origin) -> SAE:
    """The SAE that knows a synthetic world by heart: its rows are the true directions, its level
    lies well above the noise."""
    form = Threshold(level=ORACLE_LEVEL, signed=world.spec.bipolar > 0)
    sae = SAE(world.spec.width, world.spec.n_features, form)
    for weights in (sae.W_enc, sae.W_dec):
        weights.data.copy_(world.directions_GD)
    sae.b_dec.data.copy_(world.bias_D)
    sae.origin = origin
    return sae


@torch.no_grad()
def matched(sae: SAE, wanted: float, x_BD: Tensor) -> SAE:
    """An SAE in inference form that spends as many pairs per token as wanted on these activations:
    with another k of a token budget, or all its levels moved by one number. A function of one's
    own stays as it is.

    >>> control = matched(frozen, measured_l0(sae, cache), x_BD)
    """
    twin = copy.copy(sae)
    twin._buffers, twin._parameters = dict(sae._buffers), dict(sae._parameters)
    form = sae.sparsify
    if isinstance(form, Choice):
        low, high = 1, sae.n_features
        while low < high:  # the least k that spends as much
            k = (low + high) // 2
            twin.sparsify = replace(form, k=k)
            low, high = (k + 1, high) if l0(twin, x_BD) < wanted - 0.5 else (low, k)
        twin.sparsify = replace(form, k=low)
    elif isinstance(form, Threshold):
        _move_levels(twin, form, wanted, x_BD)
    return twin


def _move_levels(twin: SAE, form: Threshold, wanted: float, x_BD: Tensor) -> None:
    """Bisect the number by which all levels, never below 0, are moved."""
    levels_F = twin.b_enc.new_full(twin.b_enc.shape, form.level)
    levels_F = levels_F if twin.levels is None else twin.levels.detach()
    reach = float(x_BD.norm(dim=1).max() * twin.W_enc.norm(dim=1).max())
    low, high = -float(levels_F.max()), reach
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        moved_F = (levels_F + middle).clamp_min(0)
        if twin.learns_levels:
            twin.levels = torch.nn.Parameter(moved_F)
        else:
            twin.levels = moved_F
        low, high = (low, middle) if l0(twin, x_BD) < wanted else (middle, high)


def frozen_decoder(
    sae: SAE,
    batches: Iterable[Tensor],
    *,
    n_steps: int = 300,
    rate: float = 1e-3,
    seed: int = 0,
    l0: float,
) -> SAE:
    """An SAE of the same shape and L0 whose decoder rows stay random while encoder and biases
    are fitted in few plain steps to the activations of one task (Adam, plain torch): the control
    of supervised dictionaries. That of `eval` is trained as the SAE was, by `train --freeze
    decoder`.

    batches: raw activations [B, D] each, of which n_steps are used; the first sets the scale and
    the bias. Deterministic. Raises UsageError if there are fewer batches, or for a transcoder,
    whose target they do not hold.
    """
    if sae.transcoder:
        raise UsageError("a frozen decoder is fitted to reconstruct its input: not for transcoders")
    twin = random_init(sae, seed, l0)
    twin.W_dec.requires_grad_(False)
    optimiser = torch.optim.Adam([twin.W_enc, twin.b_enc, twin.b_dec], lr=rate)
    scale, n_done = 1.0, 0
    for batch_BD in islice(batches, n_steps):
        x_BD = batch_BD.to(sae.W_enc)
        if not n_done:
            scale = float(x_BD.square().mean().sqrt()) or 1.0
            twin.b_dec.data.copy_(x_BD.mean(0) / scale)
        x_BD = x_BD / scale
        loss = (twin(x_BD) - x_BD).square().sum() / (x_BD - x_BD.mean(0)).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.param_groups[0]["lr"] = rate * min(1.0, 5 * (1 - n_done / n_steps))
        optimiser.step()
        n_done += 1
    if n_done < n_steps:
        raise UsageError(f"{n_steps} steps need as many batches, there were {n_done}")
    twin.requires_grad_(True)
    scaling.fold(twin, scale)
    return twin
