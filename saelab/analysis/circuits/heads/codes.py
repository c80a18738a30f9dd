"""Discrete codes: heads are ranked by the codes they show on a task's prompts and never on their
corrupted twins.

O'Neill and Bui 2024. One small SAE reads the output of every head (through W_O, averaged over
positions); a head's code on a prompt is the latent that is most active. The SAE is trained on a few
unlabelled prompts; nothing is tuned on a known circuit.

Of raw outputs, as in the paper's code, the SAE mostly describes which head is speaking: a head's
mean output is several times larger than what changes between prompts. By default each head's mean
over all prompts is taken away first, which is our change.

Shapes: N head outputs, P prompts, K heads of all layers in order, D width, F latents.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab import scaling
from saelab.analysis.circuits.heads.stream import by_head
from saelab.errors import UsageError
from saelab.models import running
from saelab.sae import SAE
from saelab.sparsify import Threshold
from saelab.tasks import Task

EXAMPLES, LATENTS, SPARSITY, EPOCHS, RATE = 10, 200, 0.02, 500, 1e-3  # the paper's code, untuned
TOKENS = 2048  # in one forward pass


class Codes(NamedTuple):
    """Codes [P, K] int64 of the clean prompts and of the twins; F stands for "no latent is
    active"."""

    clean: Tensor
    corrupted: Tensor


@torch.no_grad()
def head_outputs(model: Any, tokens_PT: Tensor) -> Tensor:
    """Every head's output in the residual stream, averaged over positions: [P, K, D]."""
    layers, rows = range(model.cfg.n_layers), []
    size = max(1, TOKENS // tokens_PT.shape[1])
    for piece_PT in tokens_PT.split(size):
        names = [f"blocks.{layer}.attn.hook_z" for layer in layers]
        seen = running.read(model, piece_PT, names)
        means = [
            seen[name].mean(1, keepdim=True) for name in names
        ]  # the projection is linear: it may come after the mean
        rows.append(
            torch.cat(
                [by_head(model, layer, mean) for layer, mean in zip(layers, means, strict=True)]
            )[:, :, 0]
        )
    return torch.cat(rows, 1).transpose(0, 1)


def train(outputs_ND: Tensor, seed: int = 0, n_latents: int = LATENTS) -> SAE:
    """A ReLU SAE: EPOCHS full-batch steps of Adam on squared error per entry + SPARSITY times an
    output's summed activations.

    It works on raw outputs; in training they are divided by their root mean square, so that
    SPARSITY means the same everywhere.
    """
    scale = float(outputs_ND.square().mean().sqrt())
    x_ND = outputs_ND / scale
    sae = SAE(x_ND.shape[1], n_latents, Threshold(), seed=seed).to(x_ND)
    optimiser = torch.optim.Adam(sae.parameters(), RATE)
    with torch.enable_grad():
        for _ in range(EPOCHS):
            acts_NF = torch.relu((x_ND - sae.b_dec) @ sae.W_enc.T + sae.b_enc)
            loss = (
                acts_NF @ sae.W_dec + sae.b_dec - x_ND
            ).square().mean() + SPARSITY * acts_NF.sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            sae.normalise_decoder()
    scaling.fold(sae, scale)
    return sae.requires_grad_(False)


def code_of(sae: SAE, outputs_PKD: Tensor) -> Tensor:
    """The most active latent of each output, [P, K]; n_features where none is active.

    Raises UsageError for an SAE of another width, and for a transcoder, whose latents stand for
    something else's output.
    """
    if sae.transcoder:
        raise UsageError(
            "codes read heads with an SAE, this is a transcoder: take, for example, an SAE "
            "trained at hook_attn_out"
        )
    if sae.d_model != outputs_PKD.shape[-1]:
        raise UsageError(
            f"this SAE reads vectors of width {sae.d_model}, the heads write "
            f"{outputs_PKD.shape[-1]} wide into the residual stream: codes need an SAE of that "
            "width, for example one trained at hook_attn_out"
        )
    flat = sae.encode(outputs_PKD.flatten(0, 1).to(sae.W_enc)).to("cpu")
    best_N = torch.full((flat.n_tokens,), -torch.inf).scatter_reduce(
        0, flat.tokens, flat.values.float(), "amax"
    )
    winners = (flat.values == best_N[flat.tokens]) & (flat.values > 0)
    codes_N = torch.full((flat.n_tokens,), sae.n_features)
    codes_N = codes_N.scatter_reduce(0, flat.tokens[winners], flat.features[winners], "amin")
    return codes_N.reshape(outputs_PKD.shape[:2])


def of_task(
    model: Any, task: Task, sae: SAE | None = None, *, seed: int = 0, centred: bool = True
) -> Codes:
    """The codes of every head on the task's prompts and on their twins.

    sae: any SAE as wide as the residual stream, which reads raw outputs; without one, an SAE
    trained on EXAMPLES prompts drawn from both kinds. centred: whether each head's mean output is
    taken away first.
    """
    clean_PKD, corrupted_PKD = head_outputs(model, task.clean), head_outputs(model, task.corrupted)
    if sae is None:
        both_PKD = torch.cat([clean_PKD, corrupted_PKD])
        if centred:
            mean_KD = both_PKD.mean(0)
            clean_PKD, corrupted_PKD, both_PKD = (
                clean_PKD - mean_KD,
                corrupted_PKD - mean_KD,
                both_PKD - mean_KD,
            )
        drawn = torch.randperm(len(both_PKD), generator=torch.Generator().manual_seed(seed))[
            :EXAMPLES
        ]
        sae = train(both_PKD[drawn].flatten(0, 1), seed)
    return Codes(code_of(sae, clean_PKD), code_of(sae, corrupted_PKD))


def only_in_clean(codes: Codes) -> Tensor:
    """[K]: how many codes each head shows on clean prompts and on no twin."""
    columns = zip(codes.clean.T.tolist(), codes.corrupted.T.tolist(), strict=True)
    return torch.tensor([float(len(set(clean) - set(corrupted))) for clean, corrupted in columns])


def pairs_only_in_clean(codes: Codes) -> Tensor:
    """[K, K]: how many pairs of codes two heads show together on a clean prompt and on no twin; 0
    on the diagonal."""
    n_codes = int(max(codes.clean.max(), codes.corrupted.max())) + 1
    counts_KK = torch.zeros(codes.clean.shape[1], codes.clean.shape[1])
    for one in range(len(counts_KK)):
        for other in range(one):
            clean, corrupted = (
                codes_PK[:, one] * n_codes + codes_PK[:, other] for codes_PK in codes
            )
            counts_KK[one, other] = counts_KK[other, one] = len(
                set(clean.tolist()) - set(corrupted.tolist())
            )
    return counts_KK


def votes(counts_KK: Tensor, n_pairs: int | None = None) -> Tensor:
    """[K]: in how many of the n_pairs ordered pairs of highest count each head is (default K^2 / 2,
    as in the paper's code)."""
    n_pairs = n_pairs or counts_KK.numel() // 2
    best = counts_KK.flatten().sort(descending=True, stable=True).indices[:n_pairs]
    return torch.bincount(
        torch.cat([best // len(counts_KK), best % len(counts_KK)]), minlength=len(counts_KK)
    ).float()
