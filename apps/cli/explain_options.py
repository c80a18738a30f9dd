"""Options of `saelab explain`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from saelab.ranges import Count, Positive

from .common import OfCache
from .numbers import Numbers

Named = Annotated[str, arg(metavar="TEXT", help_behavior_hint="")]


@dataclass(frozen=True)
class Args(OfCache):
    """Options of `saelab explain`."""

    run: Positional[Path] = Path()
    """run folder"""
    features: Numbers = ""
    """features to print, such as 7,12,100-120, or all; rules are found for every live one, an
    endpoint is asked about these"""
    tokens: Count = 500_000
    """training tokens to find rules on, at most"""
    held_out: Count = 100_000
    """held-out tokens to score them on, at most"""
    endpoint: Named = ""
    """OpenAI-compatible address, such as http://127.0.0.1:8000/v1, whose language model is shown
    training texts of the --features and asked for explanations, and then which held-out texts they
    foretell; nothing is sent anywhere without it"""
    model_name: Named = ""
    """the language model's name there"""
    key_from: str = "SAELAB_API_KEY"
    """environment variable that holds the key of the endpoint, if it wants one"""
    timeout: Positive = 60.0
    """seconds until each of its answers must have come"""
