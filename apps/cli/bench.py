"""Time a whole training step on this machine: every sparsifier, the dense step, and the product
they are compared with.

    saelab bench --width 768 --features 24576 --k 32
    saelab bench --explain
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import saelab
from saelab.door import beside
from saelab.errors import UsageError
from saelab.ranges import Count

from .common import OnDevice, document, show
from .progress import stage

if TYPE_CHECKING:
    from torch import Tensor

SPARSIFIERS = ("topk", "abstopk", "batchtopk", "feature-choice", "g-sae")
AUX = {"topk, AuxK with 5% dead": 0.05, "topk, AuxK with 90% dead": 0.9}
AUTOGRAD = "topk, torch's autograd and Adam"
DENSE = "dense torch"


@dataclass(frozen=True)
class Args(OnDevice):
    """Options of `saelab bench`."""

    width: Count = 768
    """D, width of the activations"""
    features: Count = 24576
    """F, dictionary size"""
    k: Count = 32
    """pairs per token"""
    batch: Count = 2048
    """B, tokens per step"""
    repeats: Count = 9
    """steps that count"""
    screen: Literal["float32", "bfloat16"] | None = None
    """screen in this dtype, whatever the probe of this machine found"""
    only: tuple[str, ...] = ()
    """entries to run (default: all)"""
    explain: bool = False
    """only say which dtype this machine screens in, and why"""


def entries(shape, device: str = "cpu") -> dict[str, Callable]:
    """What can be timed in this process, by name: functions that make a step."""
    benchmark, make = beside("training.benchmark"), partial(trainer, shape, device=device)
    named = {DENSE: lambda: benchmark.dense(shape, device)}
    named |= {name: lambda name=name: make(name) for name in SPARSIFIERS}
    named |= {name: lambda share=share: make("topk", dead=share) for name, share in AUX.items()}
    return {**named, AUTOGRAD: lambda: make("topk", fused=False)}


def trainer(
    shape, sparsify: str, dead: float = 0.0, fused: bool = True, device: str = "cpu"
) -> partial[None]:
    """The trainer's own step. dead: this share of the features is held dead, so that AuxK has that
    much to do."""
    import torch

    benchmark = beside("training.benchmark")
    x_BD = benchmark.tokens(shape, device)
    config = saelab.Config(
        sparsify=sparsify,
        k=shape.k,
        features=shape.features,
        batch=shape.batch,
        tokens=10**9,
        lr=benchmark.DENSE_LR,
        device=device,
    )
    run = beside("training.run").Run(config, x_BD, x_BD)
    if not fused:
        run.optimiser = beside("training.updates").Autograd(config, run.sae)
    grad_BD = x_BD.roll(1, 0) if sparsify == "g-sae" else None
    held_F = torch.arange(shape.features, device=device) < dead * shape.features
    return partial(_step, run, x_BD, grad_BD, held_F)


def _step(run, x_BD: "Tensor", grad_BD: "Tensor | None", held_F: "Tensor") -> None:
    run.step(x_BD, x_BD, grad_BD)
    run.counters.silent_F[held_F] = run.config.window


def explained(device: str = "cpu") -> dict:
    """Machine, versions, what the probe found, and where steps are timed."""
    import platform

    import torch

    from saelab.kernels.cpu.probe import probe

    probed = probe()
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    screens = {name: probed[name] for name in ("screen", "why")}
    on_card = torch.device(device).type == "cuda"
    card = torch.cuda.get_device_name(device) if on_card else device
    return {**probed["machine"], **screens, **versions, "device": card}


def measured(
    shape, repeats: int, only: tuple[str, ...], screen: str | None, device: str = "cpu"
) -> dict[str, dict]:
    """The prices of this process's entries, as plain numbers."""
    import torch

    from saelab.kernels.cpu import probe

    benchmark = beside("training.benchmark")
    made = entries(shape, device)
    unknown = sorted(set(only) - set(made))
    if unknown:
        raise UsageError(f"no entry {', '.join(unknown)}; there are {', '.join(made)}")
    yardstick = benchmark.product(shape, device)
    prices = {}
    with probe.screening(getattr(torch, screen)) if screen else nullcontext():
        for name, make in made.items():
            if not only or name in only:
                stage(f"timing {name}")
                prices[name] = benchmark.measure(make, yardstick, repeats)._asdict()
    return prices


def table(prices: dict[str, dict]) -> str:
    """One line per entry: milliseconds, how many products that is, and how many times faster than
    the dense step."""
    width = max(len(name) for name in prices)
    lines = [f"{'':{width}} {'ms':>9} {'least':>9} {'products':>9} {'x dense':>9}"]
    base = prices.get(DENSE)
    for name, price in prices.items():
        if "missing" in price:
            lines.append(f"{name:{width}} not run: {price['missing']}")
            continue
        faster = f"{base['products'] / price['products']:9.1f}" if base else f"{'-':>9}"
        lines.append(
            f"{name:{width}} {price['median']:9.1f} {price['least']:9.1f} "
            f"{price['products']:9.2f} {faster}"
        )
    return "\n".join(lines)


def run(args: Args) -> int:
    """Measure and print; --explain: print what the probe found."""
    machine = explained(args.place)
    why = (
        f"{machine['processor']}, {machine['threads']} threads: screens in {machine['screen']}, "
        f"because {machine['why']}"
    )
    if args.explain:
        show(document("bench", args.seed, machine=machine), args.json, why)
        return 0
    shape = beside("training.benchmark").Shape(args.width, args.features, args.k, args.batch)
    prices = measured(shape, args.repeats, args.only, args.screen, args.place)
    result = document(
        "bench",
        args.seed,
        machine=machine,
        shape=shape._asdict(),
        screen=args.screen,
        prices=prices,
    )
    head = (
        f"one training step on {machine['device']}, d={args.width}, F={args.features}, "
        f"k={args.k}, B={args.batch}; a product: [B, d] [d, F], the faster of float32 and bfloat16"
    )
    show(result, args.json, f"{why}\n{head}\n\n{table(prices)}")
    return 0
