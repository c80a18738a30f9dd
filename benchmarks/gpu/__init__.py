"""What a card does: the stages of `benchmarks/gpu_check.py`."""
