"""What running a model costs beside the bare Hugging Face model: `python benchmarks/running.py
[--model NAME]`.

Reading: activations at a hook beside a forward pass to the same layer that is stopped there, and
beside the bridge. Evaluating: a clean pass, the splices of some rows and their losses beside one
whole pass for each of them. All take turns; the median of the ratios is what is stated.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saelab import models
from saelab.models import running
from saelab.models.families import point
from saelab.models.losses import compare
from saelab.models.splicing import Splice

RESULTS = Path(__file__).parent / "results"


class Stop(Exception):
    """The layer has been reached."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Reading and evaluating beside bare passes.")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--hook", default="blocks.1.hook_resid_post")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--rows", type=int, default=5, help="rows spliced in, as of a report")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args()


def bare(model: models.Model, tokens_CT: Tensor, hook: str) -> None:
    """A forward pass that ends where `hook` lies, and keeps nothing."""
    where = point(model.family, model.plain.config, models.resolve_hook(model, hook))

    def stop(*_: Any) -> None:
        raise Stop

    module = model.plain.get_submodule(where.module)
    register = {
        "hook_in": module.register_forward_pre_hook,
        "hook_out": module.register_forward_hook,
    }
    handle = register[where.side](stop)
    try:
        model.plain(input_ids=tokens_CT, use_cache=False)
    except Stop:
        pass
    finally:
        handle.remove()


def evaluated(model: models.Model, tokens_CT: Tensor, hook: str, n_rows: int) -> None:
    """What a report takes of the model: a clean run, its rows spliced in, their losses."""
    splice = Splice(model, tokens_CT, hook)
    given_CTD = splice.acts[hook] / 2
    endings = {str(row): splice.ending(given_CTD) for row in range(n_rows)}
    everywhere_CT = torch.ones_like(tokens_CT, dtype=torch.bool)
    compare(model, {"clean": splice.clean, **endings}, tokens_CT, everywhere_CT)


def seconds(work: Callable[[], Any]) -> float:
    """Of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@torch.no_grad()
def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Medians over rounds in which everything takes its turn."""
    model, hook = models.load(args.model), args.hook
    size = running.contexts_per_pass(model, args.context)
    tokens_CT = torch.randint(1, model.cfg.d_vocab, (size, args.context))

    def through_bridge() -> None:
        with running.engine("bridge"):
            running.read(model, tokens_CT, [hook])

    works: dict[str, Callable[[], Any]] = {
        "bare_to_hook": lambda: bare(model, tokens_CT, hook),
        "read": lambda: running.read(model, tokens_CT, [hook]),
        "read_by_bridge": through_bridge,
        "bare_passes": lambda: [
            model.plain(input_ids=tokens_CT, use_cache=False) for _ in range(1 + args.rows)
        ],
        "evaluation": lambda: evaluated(model, tokens_CT, hook, args.rows),
    }
    rounds = [{name: seconds(work) for name, work in works.items()} for _ in range(args.rounds + 1)]
    rounds = rounds[1:]  # the first one makes the bridge

    def ratio(one: str, other: str) -> float:
        return round(statistics.median(row[one] / row[other] for row in rounds), 3)

    medians = {name: statistics.median(row[name] for row in rounds) for name in works}
    return {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "model": model.located.name if model.located else args.model,
        "attention": model.plain.config._attn_implementation,
        "hook": hook,
        "contexts_per_pass": size,
        "context": args.context,
        "rows": args.rows,
        "microseconds_per_token": {
            name: round(1e6 * value / tokens_CT.numel(), 2) for name, value in medians.items()
        },
        "speed_of_reading_beside_bare": ratio("bare_to_hook", "read"),
        "speed_of_the_bridge_beside_bare": ratio("bare_to_hook", "read_by_bridge"),
        "time_of_evaluation_beside_bare_passes": ratio("evaluation", "bare_passes"),
    }


def main() -> None:
    """Measure, print, and write where asked."""
    args = arguments()
    result = json.dumps(measure(args), indent=1)
    print(result)
    if args.out:
        args.out.write_text(result + "\n")


if __name__ == "__main__":
    main()
