"""What tracing a prompt of 30 tokens costs: an attribution graph, pruned, scored and written as a
document, on untrained transcoders of the bundled model's four layers (F=4096, k=32: about 3,700
active features, as many as trained ones have at that k).

    python benchmarks/graph_trace.py --threads 2
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch

from apps.cli import bench
from saelab import SAE, Choice, models
from saelab.analysis.circuits.graphs import report
from saelab.files import write_json
from saelab.origin import Origin

TEXT = """When Anna and Ben went to the old market in the city yesterday, Ben decided to give a \
small bottle of fresh cold water to"""
RESULTS = Path("benchmarks/results/graph_trace.json")


def transcoder(layer: int) -> SAE:
    """An untrained transcoder of a layer of the bundled model."""
    sae = SAE(256, 4096, Choice(32), transcoder=True, seed=layer)
    sae.origin = Origin(f"blocks.{layer}.mlp.hook_in", f"blocks.{layer}.mlp.hook_out")
    return sae


def measure(repeats: int) -> dict:
    """Least wall and CPU seconds of several traces, the first of which compiles kernels."""
    model, saes = models.load("bundled"), [transcoder(layer) for layer in range(4)]
    prompt, plan = report.prompt(model, TEXT), report.Plan(n_ablated=0)
    wall, cpu = [], []
    for _ in range(repeats + 1):
        clocks = time.perf_counter(), time.process_time()
        traced = report.trace(model, saes, prompt, plan, "prompt")
        wall.append(time.perf_counter() - clocks[0])
        cpu.append(time.process_time() - clocks[1])
    return {
        "tokens": len(prompt.tokens),
        "features": traced.fields["n_features"],
        "edges": traced.fields["n_edges"],
        "seconds": min(wall[1:]),
        "cpu_seconds": min(cpu[1:]),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    head = {"machine": bench.explained(), "threads": given.threads, "load": os.getloadavg()[0]}
    result = {**head, "dtype": "float32", **measure(given.repeats)}
    write_json(RESULTS, result)
    print(json.dumps(result, indent=1))
