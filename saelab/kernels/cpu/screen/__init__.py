"""Choosing on CPUs: bounds in low precision, candidates, exact values, certificates."""
