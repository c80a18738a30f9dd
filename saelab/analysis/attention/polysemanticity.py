"""Head polysemanticity: how many different things the features of each attention head are about.

Kissane et al. 2024, section 4.3, let people judge whether a head's ten strongest features share a
theme. Here a feature's profile is how its activation is spread over the tokens it fires on, and the
number of themes is the effective rank of the profiles' similarities, beside the same for random
features of that SAE. Shapes: B tokens, F features, G of them that fire, H heads, V vocabulary, K
features of a head, R random draws.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.activations import Cache
from saelab.analysis.attention.attribution import head_shares
from saelab.code import Code
from saelab.errors import UsageError
from saelab.sae import SAE

FEATURES = 10
DRAWS = 1000


class Head(NamedTuple):
    """A head's report. features [K]: those with the largest decoder share, among features that
    fire; shares [K].

    themes: 1 where all K are about the same tokens, K where no two share one. null_low, null_high:
    95% of random sets of K features. alike: themes below null_low: the head's features have more in
    common than chance, a candidate for one meaning.
    """

    head: int
    features: Tensor
    shares: Tensor
    themes: float
    null_low: float
    null_high: float
    alike: bool


def similarities(code: Code, tokens_B: Tensor, features_G: Tensor) -> Tensor:
    """[G, G]: sum over tokens of sqrt(p q), where p and q are the shares of two features'
    |activation| that fall on each token.

    1 for features with the same tokens, 0 for features without a common one (Bhattacharyya 1943).
    """
    from scipy.sparse import coo_array

    place = (code.features.numpy(), tokens_B[code.tokens].numpy())
    mass_FV = coo_array((code.values.detach().abs().double().numpy(), place)).tocsr()[
        features_G.numpy()
    ]
    roots_GV = mass_FV.multiply(1 / mass_FV.sum(1)[:, None]).tocsr().sqrt()
    return torch.from_numpy((roots_GV @ roots_GV.T).toarray())


def themes(similarity_KK: Tensor) -> Tensor:
    """Effective rank [...] of similarities [..., K, K] with 1 on the diagonal: (sum of
    eigenvalues)^2 / sum of their squares."""
    n = similarity_KK.shape[-1]
    return n**2 / similarity_KK.square().sum((-1, -2))


def report(sae: SAE, code: Code, tokens_B: Tensor, n_heads: int, seed: int = 0) -> list[Head]:
    """One row per head of the layer whose concatenated head outputs `sae` stands on; code, tokens_B
    [B]: a sample of its text.

    Raises UsageError if fewer features fire on the sample than a head's report needs.
    """
    live_G = (
        torch.bincount(code.features[code.values != 0], minlength=code.n_features)
        .nonzero()
        .flatten()
    )
    if len(live_G) < 2 * FEATURES:
        raise UsageError(
            f"{len(live_G)} features fire on this sample, a report needs {2 * FEATURES}: take "
            "more text"
        )
    similarity_GG = similarities(code, tokens_B, live_G)
    draw = torch.Generator().manual_seed(seed)
    sets_RK = torch.stack(
        [torch.randperm(len(live_G), generator=draw)[:FEATURES] for _ in range(DRAWS)]
    )
    null_R = themes(similarity_GG[sets_RK[:, :, None], sets_RK[:, None]])
    low, high = (float(null_R.quantile(q)) for q in (0.025, 0.975))
    shares_GH = head_shares(sae, n_heads).cpu()[live_G]
    rows = []
    for head in range(n_heads):
        top = shares_GH[:, head].topk(FEATURES)
        n_themes = float(themes(similarity_GG[top.indices[:, None], top.indices]))
        rows.append(
            Head(head, live_G[top.indices], top.values, n_themes, low, high, n_themes < low)
        )
    return rows


@torch.no_grad()
def of_model(
    saes: Sequence[SAE], cache: Cache, n_tokens: int = 100_000, seed: int = 0
) -> dict[str, list[Head]]:
    """`report` for every SAE, by its hook as the cache calls it: SAEs on every layer's head outputs
    give every head of a model.

    The sample is the first n_tokens held-out tokens of the cache. Raises UsageError for an SAE that
    does not stand on head outputs side by side, and for a hook that the cache does not hold.
    """
    heads = {}
    for sae in saes:
        hook = cache.resolve(sae.origin.hook)
        shape = cache.plan.hooks[hook]["shape"]
        if len(shape) != 2:
            raise UsageError(
                f"{hook} has no heads: the report is for SAEs on attn.hook_z, all heads' outputs "
                "side by side"
            )
        chunks = list(cache.counted(hook, "held_out", n_tokens))
        codes = [sae.encode(chunk.x.to(sae.b_dec)).to("cpu") for chunk in chunks]
        tokens = [chunk.tokens for chunk in chunks]
        heads[hook] = report(sae, Code.concatenate(codes), torch.cat(tokens), shape[0], seed)
    return heads
