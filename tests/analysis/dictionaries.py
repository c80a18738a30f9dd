"""Small dictionaries with random weights at hooks of the tiny model, and a task made of random
tokens."""

import torch

from saelab import SAE, Choice
from saelab.analysis.circuits import Task
from saelab.origin import Origin

RESIDUAL, Z, MLP = "blocks.0.hook_out", "blocks.1.attn.o.hook_in", "blocks.{}.mlp"


def dictionary(
    hook: str,
    target: str | None = None,
    *,
    width: int = 32,
    features: int = 48,
    k: int = 5,
    seed: int = 0,
) -> SAE:
    """An untrained SAE, or transcoder to `target`, whose biases are not 0."""
    sae = SAE(width, features, Choice(k), transcoder=target is not None, seed=seed)
    draw = torch.Generator().manual_seed(seed + 100)
    sae.b_enc.data = 0.3 * torch.randn(features, generator=draw)
    sae.b_dec.data = 0.3 * torch.randn(width, generator=draw)
    sae.origin = Origin(hook, target or "")
    return sae


def transcoder(layer: int, seed: int = 0, **shape: int) -> SAE:
    """A transcoder of an MLP of the tiny model."""
    return dictionary(
        f"blocks.{layer}.mlp.hook_in", f"blocks.{layer}.mlp.hook_out", seed=seed, **shape
    )


def random_task(n: int = 6, length: int = 7, seed: int = 0) -> Task:
    """Random prompts that differ from their twins at two positions; the answers are random
    tokens."""
    draw = torch.Generator().manual_seed(seed)
    clean = torch.randint(1, 257, (n, length), generator=draw)
    clean[:, 0] = 0
    corrupted = clean.clone()
    corrupted[:, 2:4] = torch.randint(1, 257, (n, 2), generator=draw)
    answers = torch.randint(1, 257, (n, 2), generator=draw)
    ends = {"end": torch.full((n,), length - 1)}
    return Task(
        "random", clean, corrupted, answers[:, :1], answers[:, 1:], "logit_difference", ends, {}
    )
