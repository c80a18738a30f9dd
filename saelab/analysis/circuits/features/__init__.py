"""Which features carry out a task."""
