"""What to say when memory has run out: how much was wanted, and what would fit."""

import contextlib
import re
from typing import Any

from saelab import Config
from saelab.device import out_of_memory

GIB = 1 << 30
RANKS = "more ranks (torchrun --nproc-per-node N --no-python saelab train ...)"
SIZES = ("batch", "features", "context", "n", "tests")  # options that memory grows with


def told(error: BaseException, args: Any) -> str:
    """One sentence for an error that says memory has run out, with what a verb's arguments may be
    instead; empty for any other error."""
    cause = out_of_memory(error)
    if cause is None:
        return ""
    smaller = [f"--{name} {value // 2} (not {value})" for name, value in _sizes(args).items()]
    ways = [*smaller, *(_of_training(args) if isinstance(args, Config) else _of_model(args))]
    right = f"; what takes less: {', '.join(ways)}" if ways else ""
    return f"out of memory{_wanted(str(cause))}{right}"


def _sizes(args: Any) -> dict[str, int]:
    given = {name: getattr(args, name, None) for name in SIZES}
    return {name: value for name, value in given.items() if isinstance(value, int) and value > 1}


def _of_training(config: Config) -> list[str]:
    halved = [name for name in ("dtype", "moments") if getattr(config, name) == "float32"]
    ways = [f"--{name} bfloat16" for name in halved]
    with contextlib.suppress(Exception):  # a number that may be missing
        size = _state(config) / GIB
        return [*ways, f"{RANKS}: weights and Adam's moments alone take {size:.1f} GiB"]
    return [*ways, RANKS]


def _of_model(args: Any) -> list[str]:
    ways = []
    if hasattr(args, "model_dtype") and args.model_dtype not in ("bfloat16", "float16"):
        ways.append("--model-dtype bfloat16")
    if getattr(args, "place", "cpu") != "cpu":
        ways.append("--device cpu")
    return ways


def _state(config: Config) -> int:
    """Bytes of the weights and of both moments."""
    from saelab.activations import Cache

    cache = Cache(config.cache)
    width = cache.width(config.hook or cache.hooks[0])
    d_out = cache.width(config.target) if config.target else width
    size = {"float32": 4, "bfloat16": 2}
    per_weight = size[config.dtype] + 2 * size[config.moments]
    return per_weight * config.features * (width + d_out)


def _wanted(text: str) -> str:
    """Where, how much more was asked for and how much there is, as far as the error says so."""
    where = re.search(r"GPU (\d+)", text)
    place = f" on cuda:{where[1]}" if where else " on the cpu" if "CPUAllocator" in text else ""
    asked = re.search(r"[Tt]ried to allocate ([\d.]+) ?(\w+)", text)
    if not asked:
        return place
    in_bytes = asked[2] == "bytes"
    size = f"{int(asked[1]) / GIB:.1f} GiB" if in_bytes else f"{asked[1]} {asked[2]}"
    held = re.search(r"total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free", text)
    there = f" where {held[2]} of {held[1]} were free" if held else ""
    return f"{place}: {size} more were wanted{there}"
