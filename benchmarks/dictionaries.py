"""How well label-free dictionaries find what was planted, and how fast orthogonal matching pursuit
is: `python -m benchmarks.dictionaries --out benchmarks/results/dictionaries.json [STAGE ...]`.

k-svd, mod: 1,500 signals of 3 of 50 atoms in 20 dimensions; k-svd of many: of 12, known to fail.
supports, speed: orthogonal matching pursuit against scikit-learn's orthogonal_mp_gram.
orthogonal, bsc, tsc, gsc: the full form of `saelab reproduce`. A stage replaces its part of the
file.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from saelab.dictionaries import planted, truncated_em
from saelab.dictionaries.ksvd import ksvd
from saelab.dictionaries.pursuit import pursue
from saelab.statistics import over_seeds
from training.reproduce import Settings, orthogonal_dictionary, prosper

FOUND, MARGIN = 0.99, 1e-5


def recovered(update: str, k: int, seeds: int, rounds: int) -> dict[str, Any]:
    """Share of the atoms found in signals of k of them."""
    shares = []
    for seed in range(seeds):
        x_ND, atoms_FD = planted.sparse_signals(k=k, seed=seed)
        learned = ksvd(x_ND, len(atoms_FD), k, rounds, seed, update)
        cosine_F = planted.cosines(atoms_FD, learned.W)
        shares.append(float((cosine_F > FOUND).double().mean()))
    setting = f"20 x 50, 1,500 signals of {k} atoms, 30 dB, {rounds} rounds"
    return {"setting": setting, "found": over_seeds(shares).as_dict(), "seeds": shares}


def supports(n: int = 1000) -> dict[str, Any]:
    """How many of n random problems have scikit-learn's support, in float64 and in float32."""
    from sklearn.linear_model import orthogonal_mp_gram

    random = torch.Generator().manual_seed(0)
    W_FD = torch.randn(256, 64, generator=random, dtype=torch.float64)
    W_FD = W_FD / W_FD.norm(dim=1, keepdim=True)
    x_ND = torch.randn(n, 64, generator=random, dtype=torch.float64)
    gram, product = (W_FD @ W_FD.T).numpy(), (W_FD @ x_ND.T).numpy()
    theirs_FN = orthogonal_mp_gram(gram, product, n_nonzero_coefs=8)
    double = pursue(x_ND, W_FD, 8, "orthogonal").code.to_dense()
    single = pursue(x_ND.float(), W_FD.float(), 8, "orthogonal").code.to_dense()
    theirs = torch.from_numpy(theirs_FN.T != 0)
    clear_N = margins(x_ND, W_FD, 8) > MARGIN
    same_N = ((single != 0) == theirs).all(1)
    return {
        "problems": n,
        "float64 same support": int(((double != 0) == theirs).all(1).sum()),
        "float64 largest difference of values": float((double - theirs_FN.T).abs().max()),
        "float32 same support": int(same_N.sum()),
        "float32 margins above 1e-5": int(clear_N.sum()),
        "float32 same support of these": int((same_N & clear_N).sum()),
    }


def margins(x_ND: torch.Tensor, W_FD: torch.Tensor, k: int) -> torch.Tensor:
    """[N]: over the k steps the least lead of the best product with the residual over the second
    best, as a share of the best."""
    least_N = torch.full((len(x_ND),), float("inf"), dtype=x_ND.dtype)
    for step in range(k):
        code = pursue(x_ND, W_FD, step, "orthogonal").code
        left_ND = x_ND - code.to_dense() @ W_FD
        best_N2 = (left_ND @ W_FD.T).abs().topk(2, 1).values
        least_N = torch.minimum(least_N, 1 - best_N2[:, 1] / best_N2[:, 0])
    return least_N


def speed(n: int = 1000, theirs_of: int = 50) -> dict[str, Any]:
    """Seconds of one batch, ours and scikit-learn's (of a part of it: it goes signal by signal);
    the Gram matrix and the first products are left out; medians of three."""
    from sklearn.linear_model import orthogonal_mp_gram

    random = torch.Generator().manual_seed(0)
    W_FD = torch.nn.functional.normalize(torch.randn(4096, 256, generator=random), dim=1)
    x_ND = torch.randn(n, 256, generator=random)
    gram, product = (W_FD @ W_FD.T).numpy(), (W_FD @ x_ND[:theirs_of].T).numpy()
    pursue(x_ND, W_FD, 16, "orthogonal")
    ours = _seconds(lambda: pursue(x_ND, W_FD, 16, "orthogonal"))
    theirs = _seconds(lambda: orthogonal_mp_gram(gram, product, n_nonzero_coefs=16))
    theirs = {name: value * n / theirs_of for name, value in theirs.items()}
    ratio = {name: theirs[name] / ours[name] for name in ours}
    shape = f"D=256, F=4096, k=16, {n} signals, float32"
    return {"setting": shape, "ours": ours, "scikit-learn": theirs, "ratio": ratio}


def _seconds(work: Callable[[], object]) -> dict[str, float]:
    """Medians of three of the wall's and of the CPU's seconds."""
    taken = []
    for _ in range(3):
        before = time.perf_counter(), time.process_time()
        work()
        taken.append((time.perf_counter() - before[0], time.process_time() - before[1]))
    wall, cpu = np.median(taken, 0)
    return {"wall": float(wall), "cpu": float(cpu)}


def claimed(claims: list[Any]) -> list[dict[str, Any]]:
    """A reproduction's claims for JSON."""
    return [claim.as_dict() for claim in claims]


def bars_found(family: str) -> dict[str, Any]:
    """The claims on one family's bars, and what each seed found."""
    found = [prosper.find(family, prosper.FULL, seed) for seed in range(prosper.FULL.seeds)]
    claims = claimed(prosper.judged(family, found))
    return {"claims": claims, "seeds": [one._asdict() for one in found]}


STAGES: dict[str, Callable[[], Any]] = {
    "k-svd": partial(recovered, "k-svd", 3, 5, 80),
    "k-svd of many": partial(recovered, "k-svd", 12, 3, 20),
    "mod": partial(recovered, "mod", 3, 5, 80),
    "supports": supports,
    "speed": speed,
    "orthogonal": lambda: claimed(orthogonal_dictionary.claims(Settings())),
    **{family: partial(bars_found, family) for family in truncated_em.FAMILIES},
}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description="Label-free dictionaries on planted truth.")
    parser.add_argument("stages", nargs="*", help=f"some of {', '.join(STAGES)}")
    parser.add_argument("--machine", default="", help="what it ran on, in words")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    result = json.loads(args.out.read_text()) if args.out.is_file() else {}
    result["machine"] = {
        "processor": args.machine,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    for stage in args.stages or STAGES:
        before = time.process_time()
        result[stage] = STAGES[stage]()
        result.setdefault("cpu_seconds", {})[stage] = round(time.process_time() - before, 1)
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
