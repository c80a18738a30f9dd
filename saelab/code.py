"""Code: which features are on for each token, and how strongly, as compressed sparse rows.

Shapes: B tokens, F features, N pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Code:
    """The pairs of B tokens over F features.

    starts [B+1] int64: token b owns pairs starts[b] to starts[b+1]. features [N] int64: ascending
    within a token, none twice. values [N]: activations; a pair may carry 0, which decodes to
    nothing, did not fire and gets no gradient.

    >>> code = sae.encode(x_BD)
    >>> code.features, code.values
    """

    starts: Tensor
    features: Tensor
    values: Tensor
    n_features: int
    _by_feature: dict = field(default_factory=dict, repr=False)

    @property
    def n_tokens(self) -> int:
        """B."""
        return len(self.starts) - 1

    @property
    def tokens(self) -> Tensor:
        """[N] int64: the token of each pair."""
        counts_B = self.starts.diff()
        # With the sum of the counts said, a card is not waited for.
        return torch.repeat_interleave(
            torch.arange(self.n_tokens, device=counts_B.device),
            counts_B,
            output_size=len(self.features),
        )

    def to(self, device: torch.device | str) -> "Code":
        """The same on another device.

        >>> rows = sae.encode(x_BD).to("cpu").features.numpy()
        """
        starts, features, values = (
            column.to(device) for column in (self.starts, self.features, self.values)
        )
        return Code(starts, features, values, self.n_features)

    def with_values(self, values: Tensor) -> "Code":
        """The same pairs with other values [N]; shares the sort by feature."""
        return replace(self, values=values)

    def by_feature(self) -> tuple[Tensor, Tensor]:
        """The pairs grouped by feature: (order [N]: pair numbers, by feature, then token; starts
        [F+1]). Computed once."""
        if not self._by_feature:
            features_N, self._by_feature["order"] = torch.sort(self.features, stable=True)
            edges = torch.arange(self.n_features + 1, device=features_N.device)
            self._by_feature["starts"] = torch.searchsorted(features_N, edges)
        return self._by_feature["order"], self._by_feature["starts"]

    def by_value(self) -> Tensor:
        """[N] int64: pair numbers, token by token, within a token by falling |value|, ties to the
        lower feature."""
        order_N = torch.sort(self.values.detach().abs(), descending=True, stable=True).indices
        return order_N[torch.sort(self.tokens[order_N], stable=True).indices]

    def ranks(self) -> Tensor:
        """[N] int64: the place of each pair in its token's order by value, 0 for the largest."""
        place_N = (
            torch.arange(len(self.features), device=self.features.device) - self.starts[self.tokens]
        )
        return torch.empty_like(place_N).scatter_(0, self.by_value(), place_N)

    def where(self, mask_N: Tensor) -> "Code":
        """The pairs for which mask_N holds."""
        counts_B = torch.bincount(self.tokens[mask_N], minlength=self.n_tokens)
        starts = torch.cat([counts_B.new_zeros(1), counts_B.cumsum(0)])
        return Code(starts, self.features[mask_N], self.values[mask_N], self.n_features)

    def to_dense(self) -> Tensor:
        """[B, F] of activations."""
        dense_BF = self.values.new_zeros(self.n_tokens, self.n_features)
        return dense_BF.index_put((self.tokens, self.features), self.values)

    def rows(self, first: int, last: int) -> "Code":
        """The code of tokens first to last (exclusive)."""
        starts = self.starts[first : last + 1]
        pairs = slice(int(starts[0]), int(starts[-1]))
        return Code(starts - starts[0], self.features[pairs], self.values[pairs], self.n_features)

    @staticmethod
    def from_mask(values_BF: Tensor, mask_BF: Tensor) -> "Code":
        """The pairs where mask_BF holds, with their values; features ascend because nonzero runs
        row by row."""
        token_N, feature_N = mask_BF.nonzero(as_tuple=True)
        starts = torch.cat([token_N.new_zeros(1), mask_BF.sum(1).cumsum(0)])
        return Code(starts, feature_N, values_BF[token_N, feature_N], mask_BF.shape[1])

    @staticmethod
    def concatenate(parts: Sequence["Code"]) -> "Code":
        """The code of the tokens of all parts (at least one) in order. Raises ValueError if their
        n_features differ."""
        if len({part.n_features for part in parts}) != 1:
            sizes = sorted({part.n_features for part in parts})
            raise ValueError(f"codes over {sizes} features have no common code")
        starts = torch.cat([parts[0].starts[:1], *(part.starts.diff() for part in parts)]).cumsum(0)
        features = torch.cat([part.features for part in parts])
        values = torch.cat([part.values for part in parts])
        return Code(starts, features, values, parts[0].n_features)
