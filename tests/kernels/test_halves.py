"""Weights in half precision choose as float64 does with the same weights, and nothing as large as
[B, F] is made on the way."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saelab import SAE, Choice, Threshold
from saelab.kernels import backend, halves
from saelab.sparsify import Sparsify

B, F, D = 40, 1000, 24
FORMS = {
    "topk": Choice(7),
    "abstopk": Choice(7, signed=True),
    "relu": Threshold(1.5),
    "signed": Threshold(2.0, signed=True),
    "levels": Threshold(),
}


def sae_of(form: Sparsify, dtype: torch.dtype, name: str = "") -> SAE:
    generator = torch.Generator().manual_seed(0)
    sae = SAE(D, F, form)
    for parameter in (sae.W_enc, sae.b_enc, sae.b_dec):
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    if name == "levels":
        sae.levels = torch.rand(F, generator=generator) * 2
    return sae.to(dtype).requires_grad_(False)


def truth(sae: SAE, x_BD: Tensor) -> tuple[Tensor, Tensor]:
    """(values [B, F], kept [B, F]) by a loop over tokens in float64."""
    centred_BD = (x_BD - sae.b_dec).double()  # in the SAE's own dtype, as it does it
    values_BF = torch.zeros(B, F, dtype=torch.float64)
    form = sae.sparsify
    for token, x_D in enumerate(centred_BD):
        pre_F = sae.W_enc.double() @ x_D + sae.b_enc.double()
        size_F = pre_F.abs() if form.signed else pre_F.relu()
        if isinstance(form, Choice):
            kept = torch.sort(size_F, descending=True, stable=True).indices[: form.k]
        else:
            level = form.level if sae.levels is None else sae.levels.double()
            kept = (size_F > level).nonzero()[:, 0]
        values_BF[token, kept] = pre_F[kept] if form.signed else pre_F[kept].relu()
    return values_BF, values_BF != 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", FORMS)
def test_the_choice_is_float64s(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(halves, "PIECE", 90 * D)  # 12 pieces, the last of them smaller
    sae = sae_of(FORMS[name], dtype, name)
    x_BD = torch.randn(B, D, generator=torch.Generator().manual_seed(1)).to(dtype)
    code = sae.encode(x_BD)
    values_BF, kept_BF = truth(sae, x_BD)
    dense_BF = code.to_dense().double()
    assert torch.equal(dense_BF != 0, kept_BF) and code.values.dtype == dtype
    assert float((dense_BF - values_BF).abs().max() / values_BF.abs().max()) < 2**-8
    assert bool((code.features.diff()[code.tokens.diff() == 0] > 0).all())
    x_hat_BD = (values_BF @ sae.W_dec.double() + sae.b_dec.double()).float()
    assert float((sae.decode(code).float() - x_hat_BD).abs().max() / x_hat_BD.abs().max()) < 0.02


def test_tokens_with_fewer_positive_values_are_filled_up_at_the_lowest_features(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(halves, "PIECE", 10 * D)
    sae = sae_of(Choice(7), torch.bfloat16)
    sae.W_enc.zero_()
    sae.b_enc.fill_(-1)
    sae.b_enc[[5, 500]] = 2.0
    code = sae.encode(torch.zeros(2, D, dtype=torch.bfloat16))
    assert code.features.tolist() == [0, 1, 2, 3, 4, 5, 500] * 2
    assert code.values.tolist() == [0, 0, 0, 0, 0, 2, 2] * 2


class Largest(TorchDispatchMode):
    """The number of entries of the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[override]
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.entries = max([self.entries, *sizes])
        return result


@pytest.mark.parametrize("name", ["topk", "levels"])
def test_nothing_as_large_as_all_pairs_is_made(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(halves, "PIECE", 50 * D)
    sae = sae_of(FORMS[name], torch.bfloat16, name)
    if sae.levels is not None:
        sae.levels += 3  # a few pairs in a hundred
    x_BD = torch.randn(2000, D, generator=torch.Generator().manual_seed(1)).bfloat16()
    with Largest() as here:
        sae.encode(x_BD)
    with backend("reference"), Largest() as dense:  # the twin that makes it
        sae.encode(x_BD)
    assert dense.entries == len(x_BD) * F
    assert here.entries <= len(x_BD) * F / 8
