"""A synthetic world whose features are known: sparse, in superposition, hierarchical, correlated,
some of them bipolar.

The mechanisms of SynthSAEBench (2026, arXiv 2602.14687) at laptop size. Shapes: N samples, D width,
G true features, P parents of a generation, C children per parent, L rank.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from saelab.errors import UsageError
from saelab.statistics.draws import stream


@dataclass(frozen=True)
class Spec:
    """Everything that decides a world; two worlds of equal specs are the same.

    firing: chances of the most and the least frequent feature, Zipf's law between. roots,
    branching, depth: trees of features in which a child fires only with its parent and at most one
    of siblings does. correlation: share of the variance behind a feature's firing that it has in
    common with others, through `rank` common causes. separation: steps that push directions apart.
    bipolar: share of features whose value takes either sign. magnitude: mean value of the most and
    the least frequent feature; spread: scale of their standard deviations. noise, bias: standard
    deviation per coordinate.
    """

    width: int = 64
    n_features: int = 512
    firing: tuple[float, float] = (0.4, 0.004)
    roots: int = 8
    branching: int = 4
    depth: int = 2
    correlation: float = 0.1
    rank: int = 8
    separation: int = 100
    bipolar: float = 0.0
    magnitude: tuple[float, float] = (5.0, 4.0)
    spread: float = 0.5
    noise: float = 0.1
    bias: float = 0.5
    seed: int = 0

    @property
    def generations(self) -> list[int]:
        """How many features each generation of the trees has, roots first."""
        return [self.roots * self.branching**g for g in range(self.depth + 1)]

    def check(self) -> None:
        """Raise UsageError, with the numbers, for a world that cannot be."""
        if sum(self.generations) > self.n_features:
            trees = (
                f"{self.roots} trees of {self.depth} generations below the root and "
                f"{self.branching} children each"
            )
            raise UsageError(
                f"{trees} hold {sum(self.generations)} features, more than "
                f"n_features={self.n_features}"
            )
        high, low = self.firing
        if not 0 < low <= high < 1:
            raise UsageError(
                f"firing={self.firing} must be two chances between 0 and 1, the higher first"
            )
        if not (0 <= self.correlation < 1 and 0 <= self.bipolar <= 1):
            raise UsageError(
                f"correlation={self.correlation} and bipolar={self.bipolar} are shares: between 0 "
                "and 1"
            )


class World:
    """directions_GD: unit rows. chance_G: how often each feature fires. parent_G: its parent, -1
    for roots and free features.

    Features are numbered by generation: roots, their children (siblings together), grandchildren,
    at last those of no tree.
    """

    def __init__(self, spec: Spec) -> None:
        spec.check()
        self.spec = spec
        draw = stream("world", spec.seed)
        self.directions_GD = _separated(
            torch.randn(spec.n_features, spec.width, generator=draw), spec.separation
        )
        self.bias_D = spec.bias * torch.randn(spec.width, generator=draw)
        self.loadings_GL = normalize(torch.randn(spec.n_features, spec.rank, generator=draw), dim=1)
        self.parent_G = _parents(spec)
        rank_G = _ranks(spec, draw)
        self.chance_G = _chances(spec, rank_G, self.parent_G)
        high, low = spec.magnitude
        self.mean_G = high + (low - high) * rank_G / max(1, spec.n_features - 1)
        self.sd_G = spec.spread * torch.randn(spec.n_features, generator=draw).abs()
        self.bipolar_G = torch.rand(spec.n_features, generator=draw) < spec.bipolar

    def sample(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """n activations x [n, D] and the values behind them, truth [n, G] (0: does not fire); x =
        truth W + b + noise."""
        draw = stream("sample", seed)
        fired_NG, size_NG = self._alone(n, draw), self._sizes(n, draw)
        first = 0
        for n_parents in self.spec.generations[:-1]:
            self._descend(first, n_parents, fired_NG, size_NG, draw)
            first += n_parents
        sign_NG = torch.where(
            self.bipolar_G & (torch.rand(n, len(self.mean_G), generator=draw) < 0.5), -1.0, 1.0
        )
        truth_NG = fired_NG * size_NG * sign_NG
        noise_ND = self.spec.noise * torch.randn(n, self.spec.width, generator=draw)
        return truth_NG @ self.directions_GD + self.bias_D + noise_ND, truth_NG

    def _alone(self, n: int, draw: torch.Generator) -> Tensor:
        """[n, G] bool: firing by each feature's own chance, with the common causes (a Gaussian
        copula of low rank)."""
        own_NG = torch.randn(n, len(self.chance_G), generator=draw)
        common_NL = torch.randn(n, self.spec.rank, generator=draw)
        share = self.spec.correlation
        cause_NG = math.sqrt(1 - share) * own_NG + math.sqrt(share) * common_NL @ self.loadings_GL.T
        return cause_NG > torch.special.ndtri(1 - self.chance_G).float()

    def _sizes(self, n: int, draw: torch.Generator) -> Tensor:
        """[n, G]: what each feature's value would be if it fired, positive."""
        return (
            self.mean_G + self.sd_G * torch.randn(n, len(self.mean_G), generator=draw)
        ).clamp_min(0.1)

    def _descend(
        self, first: int, n_parents: int, fired_NG: Tensor, size_NG: Tensor, draw: torch.Generator
    ) -> None:
        """Redraw, in place, the firing of the children of features first to first + n_parents, and
        scale them by their parents.

        Given its parent a child fires with chance / parent's chance, so that over all samples it
        fires with its own chance.
        """
        parents = slice(first, first + n_parents)
        children = _children(self.spec, first, n_parents)
        shape = (n_parents, self.spec.branching)
        given_PC = self.chance_G[children].view(shape) / self.chance_G[parents, None]
        drawn_NP = torch.rand(len(fired_NG), n_parents, generator=draw, dtype=torch.float64)
        chosen_NP = (drawn_NP[:, :, None] >= given_PC.cumsum(1)).sum(2)
        here_NPC = (chosen_NP[:, :, None] == torch.arange(shape[1])) & fired_NG[:, parents, None]
        fired_NG[:, children] = here_NPC.flatten(1)
        size_NG[:, children] *= (size_NG[:, parents] / self.mean_G[parents]).repeat_interleave(
            shape[1], dim=1
        )


def _separated(rows_GD: Tensor, steps: int) -> Tensor:
    """Unit rows, pushed apart by gradient steps on the sum of their squared cosines."""
    rows_GD = normalize(rows_GD, dim=1)
    rate = 0.1 * min(1.0, rows_GD.shape[1] / len(rows_GD))
    for _ in range(steps):
        overlap_GG = (rows_GD @ rows_GD.T).fill_diagonal_(0)
        rows_GD = normalize(rows_GD - rate * overlap_GG @ rows_GD, dim=1)
    return rows_GD


def _children(spec: Spec, first: int, n_parents: int) -> slice:
    """Where the children of one generation, features first to first + n_parents, stand."""
    return slice(first + n_parents, first + n_parents + n_parents * spec.branching)


def _parents(spec: Spec) -> Tensor:
    parent_G = torch.full((spec.n_features,), -1)
    first = 0
    for n_parents in spec.generations[:-1]:
        numbers = torch.arange(first, first + n_parents)
        parent_G[_children(spec, first, n_parents)] = numbers.repeat_interleave(spec.branching)
        first += n_parents
    return parent_G


def _ranks(spec: Spec, draw: torch.Generator) -> Tensor:
    """[G]: rank by frequency, 0 the most frequent: random, but generation by generation in the
    trees."""
    rank_G = torch.randperm(spec.n_features, generator=draw)
    in_trees = sum(spec.generations)
    rank_G[:in_trees] = rank_G[:in_trees].sort().values
    return rank_G


def _chances(spec: Spec, rank_G: Tensor, parent_G: Tensor) -> Tensor:
    """[G] float64: Zipf's law by rank; a child's chance is at most its parent's, shared among the
    siblings."""
    high, low = spec.firing
    exponent = math.log(high / low) / math.log(max(2, spec.n_features))
    chance_G = high * (rank_G + 1).double() ** -exponent
    for child in (parent_G >= 0).nonzero().flatten().tolist():
        chance_G[child] = torch.minimum(chance_G[child], chance_G[parent_G[child]] / spec.branching)
    return chance_G
