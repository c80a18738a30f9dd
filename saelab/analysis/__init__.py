"""Analyses of models and SAEs: functions over tensors that return NamedTuples."""
