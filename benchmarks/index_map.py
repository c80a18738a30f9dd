"""The map of an index's directions: how long laying them out takes, in how much memory, up to the
number above which the plane of the principal components stands in for t-SNE.

    python benchmarks/index_map.py --features 5000 20000 20001 --out benchmarks/results/...

Rows are clustered, as those of a trained decoder are; each number in a process of its own.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from saelab.features.directions import plane
from saelab.files import write_json

WIDTH = 256
PER_CLUSTER = 20  # features that share a direction


def memory() -> float:
    """Megabytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(n_features: int) -> dict:
    """One map: its method, what it took, and whether clusters are still beside each other."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(-(-n_features // PER_CLUSTER), WIDTH, generator=generator)
    noise_FD = 0.7 * torch.randn(n_features, WIDTH, generator=generator)
    rows_FD = centres.repeat_interleave(PER_CLUSTER, 0)[:n_features] + noise_FD
    plane(rows_FD[:100], torch.ones(100, dtype=torch.bool))  # what is loaded on first use
    before, started = memory(), time.process_time()
    name, places_F2 = plane(rows_FD, torch.ones(n_features, dtype=torch.bool))
    spent = time.process_time() - started
    some = torch.randperm(n_features, generator=generator)[:500]
    near_SN = torch.cdist(places_F2[some], places_F2).topk(2, largest=False).indices
    same = (near_SN[:, 1] // PER_CLUSTER == some // PER_CLUSTER).float().mean()
    return {
        "features": n_features,
        "method": name,
        "cpu_s": spent,
        "mb_before": before,
        "mb": memory(),
        "nearest_is_of_the_cluster": float(same),
    }


def main() -> None:
    """Measure one number, or each of several in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, nargs="+", default=[5000, 20_000, 20_001])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if len(args.features) == 1:
        print(json.dumps(measured(args.features[0])))
        return
    rows = []
    for n_features in args.features:
        command = [sys.executable, __file__, "--features", str(n_features)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(said))
        print(rows[-1], flush=True)
    machine = platform.processor() or platform.machine()
    shape = {"machine": machine, "threads": 1, "dtype": "float32", "width": WIDTH}
    if args.out:
        write_json(args.out, {**shape, "command": " ".join(sys.argv), "rows": rows})


if __name__ == "__main__":
    main()
