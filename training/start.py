"""What the initial weights of a run are drawn from, and which runs differ by their seed alone."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

from .config import FREE, Config

# What changes how the same SAE is computed, in which order it sees its tokens or where they come
# from, and not which SAE it is to be.
HOW = {"backend", "live", "model_dtype", "text_field", "context", "ring", "keep", "calibration"}
HOW |= {"order_seed"}


def seed_of(config: Config) -> int:
    """The seed of the initial weights: of the whole configuration, so that two runs of one --seed
    have no start in common unless they are the same run.

    Fields at their default are left out: those that later versions add change no start.

    >>> seed_of(Config(k=32)) == seed_of(Config(k=64))
    False
    """
    return int(_hash({**_given(config), "seed": config.seed})[:8], 16)


def configuration(config: Config) -> str:
    """A word that runs share which differ by their seeds alone (first 16 digits of a SHA-256)."""
    given = _given(config)
    return _hash({name: given[name] for name in given if name != "seed"})[:16]


def _given(config: Config) -> dict[str, Any]:
    """The fields that decide which SAE it is, where they are not at their default."""
    mine, default = asdict(config), asdict(Config())
    return {
        name: value
        for name, value in mine.items()
        if name not in FREE | HOW and value != default[name]
    }


def _hash(given: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()
