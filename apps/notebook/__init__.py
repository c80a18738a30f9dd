"""Runs in a notebook: what `saelab.open`, `saelab.train` and `saelab.show` are."""
