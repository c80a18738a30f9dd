"""What a capture will cost.

Shapes: C contexts, T positions.
"""

import resource
import sys
import time

import torch

from saelab.activations.from_text import FromText
from saelab.activations.source import Piece, all_but_first
from saelab.models import running


def estimate(source: FromText) -> dict[str, float]:
    """Bytes on disk, seconds and peak memory of a capture, from three timed forward passes; nothing
    is written."""
    plan, model = source.plan, source.model
    shape = (running.contexts_per_pass(model, plan.context), plan.context)
    tokens_CT = torch.randint(
        0, model.cfg.d_vocab, shape, generator=torch.Generator().manual_seed(0)
    )
    piece = Piece(
        "train", tokens_CT, tokens_CT, torch.arange(len(tokens_CT)), all_but_first(tokens_CT)
    )
    list(source.acts(piece))
    passes = []
    for _ in range(3):
        started = time.perf_counter()
        list(source.acts(piece))
        passes.append(time.perf_counter() - started)
    seconds = min(passes) / tokens_CT.numel() * plan.n_tokens
    # One shard is written while the next is computed.
    n_contexts = min(plan.shard_contexts, -(-plan.n_tokens // plan.context))
    n_positions = n_contexts * plan.context
    unit = 1 if sys.platform == "darwin" else 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    memory = used + 2 * n_positions * plan.bytes_per_position + 2 * plan.moments_bytes
    return {"bytes": plan.needed_bytes, "seconds": seconds, "peak_memory_bytes": memory}
