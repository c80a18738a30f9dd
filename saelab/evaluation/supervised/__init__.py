"""Supervised dictionaries, and how close an SAE comes to them (Makelov, Lange and Nanda 2024, arXiv 2405.08366)."""

from saelab.evaluation.supervised.evaluate import evaluate

__all__ = ["evaluate"]
