"""Measuring SAEs: metrics with one written definition each, intervals, and the model's loss with
the SAE spliced in."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saelab.evaluation.report import evaluate as evaluate

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    # Reading `rows`, as the browser does, needs neither torch nor a model.
    if name == "evaluate":
        from saelab.evaluation.report import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
