"""Ours, with `encoder` fitted."""

from functools import partial

from . import ours

VERSION = ours.VERSION
train = partial(ours.train, encoder="fitted")
