"""The feature browser."""

PLACES = "SAELAB_BROWSE"  # environment variable: JSON list of the folders that were named
