"""Which heads, MLPs and features of a model carry out a task."""

from saelab.analysis.circuits.tasks import Task, build, measure, task

__all__ = ["Task", "build", "measure", "task"]
