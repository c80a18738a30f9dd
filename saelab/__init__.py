"""saelab: a mechanistic-interpretability workbench built on sparse autoencoders.

>>> import saelab
>>> run = saelab.open("runs/demo")
>>> run.top(search="self"), run.feature(7), run.features("import numpy as np")
>>> mine = saelab.train(x_ND, k=16, features=1024)
"""

from typing import TYPE_CHECKING, Any

from saelab.idle import wait_asleep

if TYPE_CHECKING:
    from apps.browser import charts, draw
    from apps.notebook import show
    from apps.notebook.graphs import graph
    from apps.notebook.opened import Run, open
    from apps.notebook.training import train
    from saelab.activations import Cache
    from saelab.code import Code
    from saelab.cross_layer import CrossLayerTranscoder
    from saelab.evaluation import evaluate
    from saelab.evaluation.rows import Metric
    from saelab.features.reader import FeatureIndex
    from saelab.formats import Format
    from saelab.models import load as load_model
    from saelab.origin import Origin
    from saelab.registration import register
    from saelab.runs import RunFolder
    from saelab.sae import SAE
    from saelab.sparsify import Choice, Threshold
    from training.config import Config

__version__ = "0.1.0"

__all__ = [
    "SAE",
    "Cache",
    "Choice",
    "Code",
    "Config",
    "CrossLayerTranscoder",
    "FeatureIndex",
    "Format",
    "Metric",
    "Origin",
    "Run",
    "RunFolder",
    "Threshold",
    "charts",
    "draw",
    "evaluate",
    "graph",
    "load_model",
    "open",
    "register",
    "show",
    "train",
]

# Public name: the module that holds it, and its name there; none for the module itself.
HOMES = {
    "SAE": ("saelab.sae", "SAE"),
    "Cache": ("saelab.activations", "Cache"),
    "Choice": ("saelab.sparsify", "Choice"),
    "Code": ("saelab.code", "Code"),
    "Config": ("training.config", "Config"),
    "CrossLayerTranscoder": ("saelab.cross_layer", "CrossLayerTranscoder"),
    "FeatureIndex": ("saelab.features.reader", "FeatureIndex"),
    "Format": ("saelab.formats", "Format"),
    "Metric": ("saelab.evaluation.rows", "Metric"),
    "Origin": ("saelab.origin", "Origin"),
    "Run": ("apps.notebook.opened", "Run"),
    "RunFolder": ("saelab.runs", "RunFolder"),
    "Threshold": ("saelab.sparsify", "Threshold"),
    "charts": ("apps.browser.charts", None),
    "draw": ("apps.browser.draw", None),
    "evaluate": ("saelab.evaluation", "evaluate"),
    "graph": ("apps.notebook.graphs", "graph"),
    "load_model": ("saelab.models", "load"),
    "open": ("apps.notebook.opened", "open"),
    "register": ("saelab.registration", "register"),
    "show": ("apps.notebook.show", None),
    "train": ("apps.notebook.training", "train"),
}


wait_asleep()


def __getattr__(name: str) -> Any:
    # The public names are looked up when first used, so that the browser and `saelab --help` start
    # without torch.
    if name not in HOMES:
        raise AttributeError(f"module 'saelab' has no attribute {name!r}")
    from saelab.door import beside

    module, there = HOMES[name]
    return getattr(beside(module), there) if there else beside(module)


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
