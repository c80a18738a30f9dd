"""Screening on CUDA GPUs: rounded rows with what rounding lost, and for every query a list of the
items that may win, from products in half precision.

Shapes: B tokens, F features, D width, Q queries and I items (tokens and features, or the other way
round), C candidates of a query, N pairs.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.kernels.triton import loops, sizes
from saelab.kernels.triton.launch import dots, product, screen_dtype, true_products

_loops: Any = loops  # compiled when launched, with plain numbers for compile-time constants
_ENTRIES = 1 << 24  # of a tile: it shall stay in the card's second cache until it has been read
_SAMPLE = 8  # every so many-th item is looked at first, and predicts the thresholds


class Rounded(NamedTuple):
    """rows [n, D or a little more]: scaled by powers of two and rounded. slack [n, 4] float32: what
    undoes the scale, |x - xt|, |x| (both scaled), bias."""

    rows: Tensor
    slack: Tensor


class Problem(NamedTuple):
    """What is to be chosen from; all tensors float32 and contiguous."""

    x: Tensor
    """[B, D]"""
    W: Tensor
    """[F, D]"""
    b: Tensor
    """[F]"""
    signed: bool
    """whether a score is a pre-activation's size"""
    beta: float
    """of the gradient's part in the score"""
    grad: Tensor
    """[B, E], x where beta is 0"""
    W_dec: Tensor
    """[F, E], W where beta is 0"""
    shadow: Rounded | None = None
    """of W and b, where it is at hand"""


class Screen(NamedTuple):
    """Both sides of a screening product."""

    queries: Rounded
    """each gets a list"""
    items: Rounded
    """of these"""
    boost_queries: Rounded | None
    """the gradient's product, of boosted scores"""
    boost_items: Rounded | None
    """its other side"""
    signed: bool
    """as the problem's"""
    beta: float
    """as the problem's"""
    width: int
    """terms of a product"""
    boost_width: int
    """terms of the gradient's product"""

    def transposed(self) -> "Screen":
        """Queries and items exchanged."""
        sides = self.items, self.queries, self.boost_items, self.boost_queries
        return Screen(*sides, *self[4:])

    def of(self, rows: Tensor) -> "Screen":
        """Some of the queries, in ascending order."""
        if len(rows) == len(self.queries.rows):
            return self
        boost = self.boost_queries
        boost = None if boost is None else Rounded(*(t[rows] for t in boost))
        queries = Rounded(*(t[rows] for t in self.queries))
        return self._replace(queries=queries, boost_queries=boost)


class Lists(NamedTuple):
    """What may win. What is in no list of a query has a bound of at most its theta (0: nothing
    positive)."""

    bounds: Tensor
    """[Q, C] float32: upper bounds of the scores, unordered, of the first counts[q] places"""
    items: Tensor
    """[Q, C] int32: items, -1 where a list ends"""
    counts: Tensor
    """[Q] int32"""
    thetas: Tensor
    """[Q] float32"""


def rounded(source: Tensor, bias: Tensor | None = None) -> Rounded:
    """The rows of source [n, D] rounded for a product on its device."""
    n, width = source.shape
    stride = -(-width // 8) * 8  # products read eight half-precision numbers at a time
    rows = source.new_zeros((n, stride), dtype=screen_dtype(source.device))
    slack = source.new_empty(n, 4)
    bias = source.new_zeros(n) if bias is None else bias
    s, block = sizes.here(), sizes.power(width)
    options = s.launch(sizes.row_warps(width, s))
    _loops.round_rows[(n,)](source, bias, rows, slack, width, stride, block, **options)
    return Rounded(rows, slack)


def screen_of(problem: Problem) -> Screen:
    """Tokens as queries, features as items."""
    features = problem.shadow or rounded(problem.W, problem.b)
    boosts = (rounded(problem.grad), rounded(problem.W_dec)) if problem.beta else (None, None)
    widths = problem.x.shape[1], problem.grad.shape[1]
    kind = problem.signed, problem.beta
    return Screen(rounded(problem.x), features, *boosts, *kind, *widths)


class _Tile(NamedTuple):
    """The items first, first + step, ..., n of them; whether the sample ends with it."""

    first: int
    step: int
    n: int
    ends_sample: bool


def _tiles(n_queries: int, n_items: int, sampled: bool) -> Iterator[_Tile]:
    """Tiles that hold every item once, the sample first."""
    most = max(32, min(16384, _ENTRIES // n_queries // 128 * 128))
    step = _SAMPLE if sampled else 1
    for residue in range(step):
        count = len(range(residue, n_items, step))
        for begin in range(0, count, most):
            n = min(most, count - begin)
            last = sampled and residue == 0 and begin + n == count
            yield _Tile(residue + begin * step, step, n, last)


def room_of(most: int) -> int:
    """Places of a list that keeps at most `most`, with room for what one look may append."""
    return sizes.power(most + sizes.here().select_columns)


def lists(screen: Screen, keep_Q: Tensor, most: int, floors: Tensor | None = None) -> Lists:
    """A list of the keep_Q[q] best items by upper bound for every query; of all of them, at most
    `most`, whose bounds are positive where keep_Q[q] is I.

    floors [I]: subtracted from the bounds. The best of a sample predict the threshold: of the best
    keep_Q[q] items e = keep_Q[q] / 8 are expected in it, and so that hardly ever too few pass, the
    threshold lies at rank e + 3.5 sqrt(e) + 1. Where more pass than a list holds, it rises.
    """
    s, device = sizes.here(), keep_Q.device
    n_queries, n_items = len(keep_Q), len(screen.items.rows)
    room = room_of(most)
    keys = torch.empty(n_queries, room, device=device)
    items = torch.empty(n_queries, room, dtype=torch.int32, device=device)
    counts = torch.zeros(n_queries, dtype=torch.int32, device=device)
    thetas = torch.zeros(n_queries, device=device)
    sampled = n_items >= 2 * _SAMPLE * most
    expected_Q = keep_Q / _SAMPLE
    first_Q = (expected_Q + 3.5 * expected_Q.sqrt() + 1).int() if sampled else keep_Q
    state = thetas, counts, keys, items
    slack = _by_tile(screen.items.slack, sampled, floors)
    boost_slack = slack if (boost := screen.boost_items) is None else _by_tile(boost.slack, sampled)

    def trim(keep: Tensor) -> None:
        options = s.launch(1, sizes.SELECT_REGISTERS)
        _loops.trim[(n_queries,)](keep, *state, room, s.select_columns, **options)

    keep = first_Q if sampled else keep_Q
    with true_products():
        for tile in _tiles(n_queries, n_items, sampled):
            _select(screen, tile, slack, boost_slack, keep, state, room)
            if tile.ends_sample:
                trim(keep)
                keep = keep_Q
    trim(keep)
    places = torch.arange(most, device=device)
    listed = torch.where(places < counts[:, None], items[:, :most], -1)
    return Lists(keys[:, :most], listed, counts, thetas)


def _by_tile(slack: Tensor, sampled: bool, floors: Tensor | None = None) -> Tensor:
    """[step, 4, n / step or a little more]: the slack of items [n, 4], what the items of a tile
    have of each part in one piece. floors [n]: a fifth part."""
    step = _SAMPLE if sampled else 1
    parts = slack if floors is None else torch.cat([slack, floors[:, None]], 1)
    rows = -(-len(parts) // (16 * step)) * 16  # so that four numbers are read together
    parts = torch.nn.functional.pad(parts, (0, 0, 0, rows * step - len(parts)))
    return parts.view(rows, step, -1).permute(1, 2, 0).contiguous()


def _select(
    screen: Screen,
    tile: _Tile,
    slack: Tensor,
    boost_slack: Tensor,
    keep_Q: Tensor,
    state: tuple[Tensor, ...],
    room: int,
) -> None:
    """Append the items of one tile."""
    s, (first, step, n, _), n_queries = sizes.here(), tile, len(keep_Q)

    def of(queries: Rounded, items: Rounded) -> Tensor:
        out = queries.rows.new_empty(n_queries, n)
        return product(queries.rows, items.rows[first::step][:n], out)

    boosts = screen.boost_queries or screen.queries, screen.boost_items or screen.items
    p = of(screen.queries, screen.items)
    h = of(*boosts) if screen.beta else p
    # Relative to the product of the norms, what summing K terms may lose on hardware that cuts off.
    units = (4 * width * 2.0**-24 for width in (screen.width, screen.boost_width))
    rounding = 2.0**-10 if p.dtype == torch.float16 else 2.0**-22
    begin, residue = divmod(first, step)
    _loops.select[(n_queries,)](
        p, h, screen.queries.slack, slack, boosts[0].slack, boost_slack, keep_Q, *state,
        n, slack.shape[2], residue * slack.stride(0) + begin, first, step, *units, rounding,
        float(screen.beta), screen.signed, screen.beta > 0, slack.shape[1] == 5, room,
        s.select_columns, **s.launch(1, sizes.SELECT_REGISTERS),
    )  # fmt: skip


def exact(problem: Problem, tokens: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """(pre-activations, scores) in float64 of pairs [N]; 0 where the feature is -1."""
    value_N = dots(problem.x, problem.W, tokens, features, problem.b)
    score_N = value_N.abs() if problem.signed else value_N
    if problem.beta:
        boost_N = dots(problem.grad, problem.W_dec, tokens, features).abs()
        score_N = score_N * (1 + problem.beta * boost_N)
    return value_N, score_N
