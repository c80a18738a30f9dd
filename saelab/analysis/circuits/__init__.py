"""Which heads, MLPs and features of a model carry out a task."""

from saelab.analysis.circuits.heads.score import METHODS, Scores, score
from saelab.tasks import Task, build, measure, task

__all__ = ["METHODS", "Scores", "Task", "build", "measure", "score", "task"]
