"""The old address of search, which the list of features answers."""

from . import features

show = features.show
