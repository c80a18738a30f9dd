"""The polysemanticity report: similarities and themes by hand, a planted head among random ones."""

import pytest
import torch

from saelab import SAE, Choice
from saelab.activations import Cache
from saelab.analysis.attention import polysemanticity
from saelab.code import Code
from saelab.errors import UsageError
from tests.analysis.dictionaries import RESIDUAL, Z, dictionary


def code_of(pairs: list[tuple[int, int, float]], n_tokens: int, n_features: int) -> Code:
    """A code from (token, feature, value)."""
    dense = torch.zeros(n_tokens, n_features)
    for token, feature, value in pairs:
        dense[token, feature] = value
    return Code.from_mask(dense, dense != 0)


def test_similarities_by_hand():
    tokens_B = torch.tensor([5, 6, 5])
    code = code_of([(0, 0, 3.0), (1, 0, 1.0), (2, 1, -2.0), (1, 2, 7.0)], 3, 4)
    found = polysemanticity.similarities(code, tokens_B, torch.tensor([0, 1, 2]))
    half = 0.75**0.5
    expected = torch.tensor([[1, half, 0.5], [half, 1, 0], [0.5, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_themes_count_groups():
    assert (
        polysemanticity.themes(torch.eye(6)) == 6 and polysemanticity.themes(torch.ones(6, 6)) == 1
    )
    two = torch.block_diag(torch.ones(3, 3), torch.ones(3, 3))
    assert float(polysemanticity.themes(two)) == 2


def planted(n_tokens: int = 400) -> tuple[SAE, Code, torch.Tensor]:
    """An SAE over 4 heads of width 4: features 0 to 9 are written by head 1 and fire on token 3,
    the others are random."""
    draw = torch.Generator().manual_seed(0)
    sae = SAE(16, 60, Choice(4), seed=1)
    sae.W_dec.data[:10] = 0
    sae.W_dec.data[:10, 4:8] = 0.5
    tokens_B = torch.randint(4, 40, (n_tokens,), generator=draw)
    tokens_B[:20] = 3
    pairs = [(b, b % 10, 1.0) for b in range(20)]
    pairs += [
        (b, 10 + int(tokens_B[b]) + int(torch.randint(0, 10, (1,), generator=draw)), 1.0)
        for b in range(20, n_tokens)
    ]
    return sae, code_of(pairs, n_tokens, 60), tokens_B


def test_a_head_whose_features_share_a_token_is_found():
    rows = polysemanticity.report(*planted(), n_heads=4)
    assert [row.alike for row in rows] == [False, True, False, False]
    assert rows[1].themes == pytest.approx(1) and set(rows[1].features.tolist()) == set(range(10))
    assert all(row.null_low < row.null_high <= polysemanticity.FEATURES for row in rows)


def test_a_sample_on_which_too_little_fires_is_refused():
    with pytest.raises(UsageError, match="1 features fire on this sample, a report needs 20"):
        polysemanticity.report(
            SAE(16, 60, Choice(4)), code_of([(0, 0, 1.0)], 1, 60), torch.tensor([3]), n_heads=4
        )


def test_every_head_of_a_model_is_read_from_a_cache(tiny_cache):
    cache, sae = Cache(tiny_cache), dictionary(Z)
    chunk = next(cache.contexts(Z, "held_out"))
    n_tokens = chunk.tokens[:, 1:].numel()
    (rows,) = polysemanticity.of_model([sae], cache, n_tokens=n_tokens).values()
    assert [row.head for row in rows] == [0, 1, 2, 3]
    with torch.no_grad():
        code = sae.encode(chunk.acts[:, 1:].flatten(0, 1))
    alone = polysemanticity.report(sae, code, chunk.tokens[:, 1:].flatten(), n_heads=4)
    assert [row.themes for row in rows] == [row.themes for row in alone]


def test_a_hook_without_heads_has_no_report(tiny_cache):
    with pytest.raises(
        UsageError,
        match=r"blocks\.0\.hook_resid_post has no heads: the report is for SAEs on attn\.hook_z",
    ):
        polysemanticity.of_model([dictionary(RESIDUAL)], Cache(tiny_cache))
