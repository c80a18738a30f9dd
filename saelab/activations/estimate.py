"""What a capture will cost.

Shapes: C contexts, T positions.
"""

import resource
import sys
import time

import torch

from saelab.activations.background import AHEAD
from saelab.activations.from_text import FromText
from saelab.activations.plan import Plan
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
    unit = 1 if sys.platform == "darwin" else 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    peak = used + memory(plan)
    return {"bytes": plan.needed_bytes, "seconds": seconds, "peak_memory_bytes": peak}


def memory(plan: Plan) -> int:
    """Bytes that writing a cache takes beside what computes it, however large it becomes: a shard
    is filled while AHEAD others wait and one is written, each with the moments of its split."""
    in_all = -(-plan.n_tokens // plan.context)
    n_contexts = min(in_all, (AHEAD + 2) * plan.shard_contexts)
    n_shards = -(-n_contexts // plan.shard_contexts)
    moments = n_shards * plan.moments_bytes // 2
    # The sums of all shards, and what adding one group of contexts takes.
    return n_contexts * plan.context * plan.position_bytes + moments + 2 * plan.moments_bytes
