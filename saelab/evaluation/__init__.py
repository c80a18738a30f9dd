"""Measuring SAEs: metrics with one written definition each, intervals, and the model's loss with
the SAE spliced in."""

from saelab.evaluation.report import evaluate

__all__ = ["evaluate"]
