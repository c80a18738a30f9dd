"""A whole training step beside its peers, in one run: `python benchmarks/train_step.py --help`.

Every entry does the same work on the same random input: encode, keep k, decode, squared error,
backward, Adam, unit decoder rows. Each peer runs in a process of its own, in its own environment
where `--peer NAME=PYTHON` names one.
"""

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a peer's environment has no saelab installed

import torch

from training import benchmark
from training.benchmark import Shape, Step

RESULTS = Path(__file__).parent / "results"


def sparsify_peer(shape: Shape) -> Step:
    """EleutherAI's sparsify, TopK."""
    from sparsify import SparseCoder, SparseCoderConfig  # type: ignore[import-not-found]

    x_BD = benchmark.tokens(shape)
    coder = SparseCoder(
        shape.width, SparseCoderConfig(num_latents=shape.features, k=shape.k), dtype=torch.float32
    )
    optimiser = torch.optim.Adam(coder.parameters(), lr=benchmark.DENSE_LR, fused=True)

    def step() -> None:
        loss = coder(x_BD, dead_mask=None).fvu
        optimiser.zero_grad()
        loss.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()
        coder.set_decoder_norm_to_unit_norm()

    return step


def sae_lens_peer(shape: Shape) -> Step:
    """SAELens, TopK."""
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig  # type: ignore[import-not-found]
    from sae_lens.saes.sae import TrainStepInput  # type: ignore[import-not-found]

    x_BD = benchmark.tokens(shape)
    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(d_in=shape.width, d_sae=shape.features, k=shape.k, device="cpu")
    )
    optimiser = torch.optim.Adam(sae.parameters(), lr=benchmark.DENSE_LR, fused=True)

    def step() -> None:
        given = TrainStepInput(
            sae_in=x_BD,
            coefficients={},
            dead_neuron_mask=None,
            n_training_steps=0,
            is_logging_step=False,
        )
        loss = sae.training_forward_pass(given).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def dictionary_learning_peer(shape: Shape) -> Step:
    """dictionary_learning's TopK trainer."""
    from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer  # type: ignore[import-not-found]

    x_BD = benchmark.tokens(shape)
    trainer = TopKTrainer(
        steps=10**6,
        activation_dim=shape.width,
        dict_size=shape.features,
        k=shape.k,
        layer=0,
        lm_name="",
        device="cpu",
        dict_class=AutoEncoderTopK,
    )

    def step() -> None:
        trainer.update(1, x_BD)

    return step


PEERS: dict[str, Callable[[Shape], Step]] = {
    "eai-sparsify": sparsify_peer,
    "sae-lens": sae_lens_peer,
    "dictionary-learning": dictionary_learning_peer,
}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="A whole training step beside its peers, in one run."
    )
    for name, default in Shape()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument(
        "--screen",
        choices=("float32", "bfloat16"),
        help="screen in this dtype, whatever the probe found",
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=PYTHON",
        help="interpreter that has this peer",
    )
    parser.add_argument(
        "--out", type=Path, help="JSON file (default: benchmarks/results/<machine>.json)"
    )
    parser.add_argument("--run-peer", help=argparse.SUPPRESS)
    return parser.parse_args()


def peer(name: str, python: str, shape: Shape, repeats: int) -> dict:
    """The peer's price in its own interpreter; {"missing": why} where it does not run there."""
    numbers = [f"--{key}={value}" for key, value in {**shape._asdict(), "repeats": repeats}.items()]
    run = subprocess.run(
        [python, __file__, "--run-peer", name, *numbers], capture_output=True, text=True
    )
    if run.returncode:
        return {"missing": run.stderr.strip().splitlines()[-1]}
    return json.loads(run.stdout.splitlines()[-1])


def main() -> None:
    """Measure, print the table, write the JSON."""
    args = arguments()
    shape = Shape(args.width, args.features, args.k, args.batch)
    if args.run_peer:
        make = PEERS[args.run_peer]
        print(
            json.dumps(
                benchmark.measure(
                    lambda: make(shape), benchmark.product(shape), args.repeats
                )._asdict()
            )
        )
        return
    from apps.cli import bench

    interpreters = {
        **dict.fromkeys(PEERS, sys.executable),
        **dict(pair.split("=", 1) for pair in args.peer),
    }
    prices = bench.measured(shape, args.repeats, (), args.screen)
    prices |= {
        name: peer(name, python, shape, args.repeats) for name, python in interpreters.items()
    }
    print(bench.table(prices))
    out = args.out or RESULTS / f"train_step_{platform.node()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    numbers = {**shape._asdict(), "repeats": args.repeats, "screen": args.screen}
    result = {
        "schema": "saelab/bench/1",
        "machine": bench.explained(),
        "shape": numbers,
        "prices": prices,
    }
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
