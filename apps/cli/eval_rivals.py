"""Label-free dictionaries beside an SAE, in `saelab eval --rivals`."""

from typing import TYPE_CHECKING

from saelab.errors import UsageError

from .progress import stage

if TYPE_CHECKING:
    from saelab import SAE
    from saelab.opening import Opened


def rivals_of(opened: "Opened", seed: int) -> "dict[str, SAE]":
    """Label-free dictionaries at the SAE's place and L0."""
    from saelab.evaluation import rivals

    folder, sae, cache_, _ = opened
    if not hasattr(sae, "W_dec"):
        raise UsageError("label-free dictionaries are rivals of SAEs: leave --rivals out")
    fitting = f"{folder.path}: fitting"
    return rivals.rivals(sae, cache_, seed, progress=lambda name: stage(f"{fitting} {name}"))
