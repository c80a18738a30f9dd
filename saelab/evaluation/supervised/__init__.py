"""Supervised dictionaries, and how close an SAE comes to them (Makelov, Lange and Nanda 2024, arXiv
2405.08366)."""

from saelab.evaluation.supervised.compare import evaluate
from saelab.evaluation.supervised.prompts import pairs, split
from saelab.evaluation.supervised.site import visit, with_controls
from saelab.tasks.attributes import TASKS, rows

__all__ = ["TASKS", "evaluate", "pairs", "rows", "split", "visit", "with_controls"]
