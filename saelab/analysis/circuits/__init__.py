"""Which heads, MLPs and features of a model carry out a task."""

from saelab.analysis.circuits.tasks import Task, measure, task

__all__ = ["Task", "measure", "task"]
