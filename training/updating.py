"""Which way of updating serves a run: a backend's passes where they do, else autograd."""

from saelab.coder import Coder
from saelab.cross_layer import CrossLayerTranscoder
from saelab.sparsify import Choice

from . import fused
from .config import Config
from .layered import Layered
from .layout import ALONE, Layout
from .updates import Autograd, Fused, Updates


def for_run(config: Config, sae: Coder, layout: Layout = ALONE) -> Updates:
    """Fused where a backend's step serves the plain loss of a budget in one process, else
    autograd."""
    plain = (
        config.loss == "plain"
        and config.clip is None
        and config.dtype == "float32"
        and config.moments == "float32"
        and sae.W_skip is None
        and layout is ALONE
    )
    backend = fused.backend_of(config, sae.b_dec.device)
    if plain and backend is not None and isinstance(sae.sparsify, Choice):
        crosses = isinstance(sae, CrossLayerTranscoder)
        return Layered(config, sae, backend) if crosses else Fused(config, sae, backend)
    return Autograd(config, sae, layout)
