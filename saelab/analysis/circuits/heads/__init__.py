"""Which heads and MLPs carry out a task."""
