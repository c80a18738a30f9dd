"""SAEs that learned nothing, or half of it: what a metric must tell a trained SAE from.

Random SAEs come close to trained ones in many metrics (2602.14111; Makelov et al. 2024, arXiv
2405.08366, for frozen decoders). Shapes: B tokens, F features, D width.
"""

import copy
from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor

from saelab import scaling
from saelab.activations import Cache
from saelab.errors import UsageError
from saelab.sae import SAE
from saelab.sparsify import Choice

L0_TOKENS = 4096  # on which the L0 is measured


@torch.no_grad()
def l0(sae: SAE, x_BD: Tensor) -> float:
    """Pairs per token with non-zero value that the SAE spends on activations."""
    return float((sae.encode(x_BD).values != 0).sum()) / len(x_BD)


def measured_l0(sae: SAE, cache: Cache, seed: int = 0) -> float:
    """L0 on a sample of the training tokens of the SAE's hook: what its references and controls may
    spend."""
    n_tokens = min(L0_TOKENS, cache.n_tokens())
    return l0(sae, next(cache.batches(sae.origin.hook, n_tokens, seed)).to(sae.W_enc))


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


def untrained(sae: SAE, cache: Cache, seed: int = 0) -> SAE:
    """`random_init` at the SAE's L0 on its cache, of a seed that the SAE itself was not made
    from."""
    return random_init(sae, seed + 12345, measured_l0(sae, cache, seed))


def permuted_decoder(sae: SAE, seed: int = 0) -> SAE:
    """The SAE with its decoder rows in random order: the same code, each latent writing what
    another one means."""
    twin = copy.deepcopy(sae)
    order_F = torch.randperm(sae.n_features, generator=torch.Generator().manual_seed(seed))
    twin.W_dec.data.copy_(sae.W_dec.data[order_F])
    return twin


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
    are fitted (Adam, plain torch).

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
