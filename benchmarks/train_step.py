"""A whole training step beside its peers, in one run: `python benchmarks/train_step.py --help`.

Every entry does the same work on the same random input: encode, keep k, decode, squared error, backward, Adam, unit decoder rows.
Peers that are importable run in a process of their own; `--peer NAME=PYTHON` names the interpreter of one that lives elsewhere.
The yardstick beside the times is one bfloat16 encoder product into memory that is used again.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

RESULTS = Path(__file__).parent / "results"
SPARSIFIERS = ("topk", "abstopk", "batchtopk", "feature-choice", "g-sae")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="A whole training step beside its peers, in one run.")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--features", type=int, default=24576)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--screen", choices=("float32", "bfloat16"), help="screen in this dtype, whatever the probe found")
    parser.add_argument("--only", nargs="+", help="entries to run (default: all)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=PYTHON", help="interpreter that has this peer")
    parser.add_argument("--out", type=Path, help=f"JSON file (default: {RESULTS.name}/<machine>.json)")
    parser.add_argument("--run-peer", help=argparse.SUPPRESS)
    return parser.parse_args()


def data(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """(x [B, D], unit rows [F, D])."""
    generator = torch.Generator().manual_seed(0)
    x_BD = torch.randn(args.batch, args.width, generator=generator)
    rows_FD = torch.randn(args.features, args.width, generator=generator)
    return x_BD, torch.nn.functional.normalize(rows_FD, dim=1)


def dense(args: argparse.Namespace) -> Callable[[], None]:
    """Plain torch: six dense products, torch's fused Adam."""
    x_BD, rows_FD = data(args)
    W_enc, W_dec = (torch.nn.Parameter(rows_FD.clone()) for _ in range(2))
    b_enc, b_dec = torch.nn.Parameter(torch.zeros(args.features)), torch.nn.Parameter(torch.zeros(args.width))
    optimiser = torch.optim.Adam([W_enc, b_enc, W_dec, b_dec], lr=1e-4, fused=True)

    def step() -> None:
        pre_BF = (x_BD - b_dec) @ W_enc.T + b_enc
        best = pre_BF.relu().topk(args.k)
        codes_BF = torch.zeros_like(pre_BF).scatter(1, best.indices, best.values)
        loss = (codes_BF @ W_dec + b_dec - x_BD).square().sum() / args.batch
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))

    return step


def saelab(args: argparse.Namespace, name: str, fused: bool) -> Callable[[], None]:
    """This library: its fused step, or its kernels under autograd with torch's fused Adam."""
    from saelab import kernels
    from saelab.kernels import autograd
    from saelab.kernels.cpu_step import Adam, Step, Weights
    from saelab.sparsify import named

    x_BD, rows_FD = data(args)
    grad_BD, choice = x_BD.roll(1, 0), named(name, args.k)
    weights = Weights(rows_FD.clone(), torch.zeros(args.features), rows_FD.clone(), torch.zeros(args.width))
    if fused:
        steps = Step(weights, *(Weights(*map(torch.zeros_like, weights)) for _ in range(2)))
        return lambda: steps.update(steps.forward(x_BD, x_BD, choice, 2 / args.batch, grad=grad_BD), Adam(1e-4, 1))
    W_enc, b_enc, W_dec, b_dec = (torch.nn.Parameter(tensor) for tensor in weights)
    optimiser = torch.optim.Adam([W_enc, b_enc, W_dec, b_dec], lr=1e-4, fused=True)

    def step() -> None:
        centred = (x_BD - b_dec).detach()
        code = kernels.choose(centred, W_enc.detach(), b_enc.detach(), choice, grad=grad_BD, W_dec=W_dec.detach())
        x_hat_BD = autograd.decode(autograd.encode(code, x_BD, b_dec, W_enc, b_enc), W_dec) + b_dec
        optimiser.zero_grad()
        ((x_hat_BD - x_BD).square().sum() / args.batch).backward()
        optimiser.step()
        with torch.no_grad():
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))

    return step


def product(args: argparse.Namespace) -> Callable[[], None]:
    """The yardstick: one bfloat16 encoder product into memory that is used again."""
    x_BD, rows_FD = (tensor.bfloat16() for tensor in data(args))
    out_BF = torch.empty(args.batch, args.features, dtype=torch.bfloat16)

    def step() -> None:
        torch.mm(x_BD, rows_FD.T, out=out_BF)

    return step


def sparsify_peer(args: argparse.Namespace) -> Callable[[], None]:
    """EleutherAI's sparsify, TopK."""
    from sparsify import SparseCoder, SparseCoderConfig  # type: ignore[import-not-found]

    x_BD, _ = data(args)
    coder = SparseCoder(args.width, SparseCoderConfig(num_latents=args.features, k=args.k), dtype=torch.float32)
    optimiser = torch.optim.Adam(coder.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        loss = coder(x_BD, dead_mask=None).fvu
        optimiser.zero_grad()
        loss.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()
        coder.set_decoder_norm_to_unit_norm()

    return step


def sae_lens_peer(args: argparse.Namespace) -> Callable[[], None]:
    """SAELens, TopK."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig  # type: ignore[import-not-found]
    from sae_lens.saes.sae import TrainStepInput  # type: ignore[import-not-found]

    x_BD, _ = data(args)
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=args.width, d_sae=args.features, k=args.k, device="cpu"))
    optimiser = torch.optim.Adam(sae.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        given = TrainStepInput(sae_in=x_BD, coefficients={}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False)
        loss = sae.training_forward_pass(given).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def dictionary_learning_peer(args: argparse.Namespace) -> Callable[[], None]:
    """dictionary_learning's TopK trainer."""
    from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer  # type: ignore[import-not-found]

    x_BD, _ = data(args)
    trainer = TopKTrainer(
        steps=10**6, activation_dim=args.width, dict_size=args.features, k=args.k, layer=0, lm_name="", device="cpu",
        dict_class=AutoEncoderTopK,
    )  # fmt: skip

    def step() -> None:
        trainer.update(1, x_BD)

    return step


PEERS = {
    "eai-sparsify": ("sparsify", sparsify_peer),
    "sae-lens": ("sae_lens", sae_lens_peer),
    "dictionary-learning": ("dictionary_learning", dictionary_learning_peer),
}


def measure(make: Callable[[], Callable[[], None]], repeats: int) -> dict:
    """Milliseconds of a step: median, quartiles and least of `repeats` after two that are not counted."""
    step, times = make(), []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        step()
        times.append(1000 * (time.perf_counter() - start))
    low, median, high = statistics.quantiles(times[2:], n=4)
    return {"median": round(median, 1), "low": round(low, 1), "high": round(high, 1), "least": round(min(times[2:]), 1)}


def ours(args: argparse.Namespace) -> dict[str, Callable[[], Callable[[], None]]]:
    """Everything that runs in this process, by name."""
    entries = {"product": lambda: product(args), "dense torch": lambda: dense(args)}
    for name in SPARSIFIERS:
        entries[f"saelab {name}"] = lambda name=name: saelab(args, name, fused=True)
    entries["saelab topk, torch's Adam"] = lambda: saelab(args, "topk", fused=False)
    return entries


def peer(name: str, python: str, args: argparse.Namespace) -> dict:
    """The peer measured in its own interpreter; {"missing": why} where it does not run there."""
    shape = [f"--{key}={getattr(args, key)}" for key in ("width", "features", "k", "batch", "repeats")]
    run = subprocess.run([python, __file__, "--run-peer", name, *shape], capture_output=True, text=True)
    return json.loads(run.stdout) if run.returncode == 0 else {"missing": run.stderr.strip().splitlines()[-1:]}


def machine() -> dict:
    """Processor, threads and versions."""
    from saelab.kernels.probe import probe

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {**probe()["machine"], "screen": probe()["screen"], "why": probe()["why"], **versions}


def table(results: dict[str, dict]) -> str:
    """One line per entry: milliseconds, and how many products and dense steps that is."""
    lines = [f"{'':28} {'ms':>9} {'least':>9} {'products':>9} {'dense/it':>9}"]
    for name, times in results.items():
        if "missing" in times:
            lines.append(f"{name:28} not run: {' '.join(times['missing'])}")
            continue
        ratios = [results.get(base, {}).get("median") for base in ("product", "dense torch")]
        products = f"{times['median'] / ratios[0]:9.1f}" if ratios[0] else f"{'-':>9}"
        faster = f"{ratios[1] / times['median']:9.1f}" if ratios[1] else f"{'-':>9}"
        lines.append(f"{name:28} {times['median']:9.1f} {times['least']:9.1f} {products} {faster}")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the JSON."""
    args = arguments()
    if args.run_peer:
        print(json.dumps(measure(lambda: PEERS[args.run_peer][1](args), args.repeats)))
        return
    from saelab.kernels import probe

    interpreters = {**dict.fromkeys(PEERS, sys.executable), **dict(pair.split("=", 1) for pair in args.peer)}
    results: dict[str, dict] = {}
    with probe.screening(getattr(torch, args.screen or probe.probe()["screen"])):
        for name, make in ours(args).items():
            if not args.only or name in args.only:
                results[name] = measure(make, args.repeats)
    for name, python in interpreters.items():
        if not args.only or name in args.only:
            results[name] = peer(name, python, args)
    print(table(results))
    shape = {key: getattr(args, key) for key in ("width", "features", "k", "batch", "repeats", "screen")}
    out = args.out or RESULTS / f"train_step_{platform.node()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"schema": "saelab/bench/1", "machine": machine(), "shape": shape, "ms": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
