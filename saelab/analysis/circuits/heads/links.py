"""The edges of a transformer's computation one by one, and how many of them a time allows.

What is measured by a run each can take longer than one waits: under a budget the edges, or nodes,
that attribution finds the largest come first, and what is left has no score.

Shapes: U writers, R readers.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from saelab.analysis.circuits.heads.stream import Site, sites

T = TypeVar("T")
Stop = Callable[[], bool]
"""Whether the time is over."""


class Link(NamedTuple):
    """One edge."""

    site: Site
    """where it is read"""
    reader: int
    """number of the reader at that site"""
    column: int
    """number of the reader among all R"""
    writer: int
    """number of the writer"""


def within(seconds: float, clock: Callable[[], float] = time.monotonic) -> Stop:
    """A budget that begins now.

    >>> stop = within(60)
    >>> score(model, task("ioi", model), "acdc", stop=stop).edges
    """
    end = clock() + seconds
    return lambda: clock() >= end


def links(model: Any) -> list[Link]:
    """All edges, in the order of their readers' computation and then of their writers'."""
    every: list[Link] = []
    first = 0
    for site in sites(model):
        readers, writers = range(site.width), range(site.n_writers)
        every += [Link(site, r, first + r, u) for r in readers for u in writers]
        first += site.width
    return every


def likely_first(every: list[Link], scores_UR: Tensor) -> list[Link]:
    """The edges by falling size of a score; equal ones as they came."""
    table = scores_UR.abs().tolist()
    return sorted(every, key=lambda link: -table[link.writer][link.column])


def blank(every: list[Link], n_writers: int) -> Tensor:
    """[U, R]: NaN for each edge, 0 where the reader comes before the writer."""
    scores_UR = torch.zeros(n_writers, 1 + every[-1].column)
    for link in every:
        scores_UR[link.writer, link.column] = torch.nan
    return scores_UR


def until(stop: Stop | None, things: list[T]) -> Iterator[T]:
    """The things for as long as there is time; all of them without a budget."""
    for thing in things:
        if stop is not None and stop():
            return
        yield thing
