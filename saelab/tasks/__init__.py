"""Prompts with twins, answers, labels and positions."""

from saelab.bundled.prompts import Drawn
from saelab.tasks.tokens import METRICS, Task, build, check_twins, collect, measure, task

__all__ = ["METRICS", "Drawn", "Task", "build", "check_twins", "collect", "measure", "task"]
