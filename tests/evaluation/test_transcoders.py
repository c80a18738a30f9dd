"""Transcoders and skip connections through evaluation, controls and index, by plain torch.

Shapes: N counted tokens, D width, F features.
"""

from pathlib import Path

import pytest
import torch

from saelab import SAE, Choice, models
from saelab.activations import Cache
from saelab.evaluation import evaluate
from saelab.features import build
from saelab.features.reader import FeatureIndex
from saelab.origin import Origin
from tests import toy_index as toy
from tests.conftest import HOOK, SECOND_HOOK
from tests.features.test_build import check_numbers

K = 3


def made(d_model: int, d_out: int, n_features: int, *, skip: bool, target: str = "") -> SAE:
    """A transcoder with every parameter drawn at random, b_dec too: it subtracts nothing."""
    options = {"d_out": d_out, "transcoder": True, "skip": skip}
    sae = SAE(d_model, n_features, Choice(K), **options)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    sae.origin = Origin(HOOK, target)
    return sae


def by_hand(sae: SAE, x_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The code [N, F] and x_hat [N, D_out] in float64."""
    W_enc, b_enc, W_dec, b_dec = (
        getattr(sae, name).detach().double() for name in ("W_enc", "b_enc", "W_dec", "b_dec")
    )
    pre_NF = (x_ND.double() @ W_enc.T + b_enc).relu()
    top = pre_NF.topk(K, dim=1)
    z_NF = torch.zeros_like(pre_NF).scatter(1, top.indices, top.values)
    x_hat = z_NF @ W_dec + b_dec
    if sae.W_skip is not None:
        x_hat = x_hat + x_ND.double() @ sae.W_skip.detach().double().T
    return z_NF, x_hat


def fvu(target_ND: torch.Tensor, x_hat_ND: torch.Tensor) -> float:
    """The share of the variance that is missed."""
    target_ND = target_ND.double()
    spread = (target_ND - target_ND.mean(0)).square().sum()
    return float((target_ND - x_hat_ND).square().sum() / spread)


@pytest.mark.parametrize("skip", [False, True])
def test_a_transcoders_report_is_what_plain_torch_says(
    skip: bool, tiny_model: Path, tiny_cache: Path
):
    cache, bridge = Cache(tiny_cache), models.load(tiny_model)
    sae = made(32, 32, 48, skip=skip, target=SECOND_HOOK)
    report = evaluate(sae, cache, bridge, n_tokens=10**9)
    x_ND, y_ND = (
        torch.cat([chunk.acts[:, 1:].flatten(0, 1) for chunk in cache.contexts(hook, "held_out")])
        for hook in (HOOK, SECOND_HOOK)
    )
    z_NF, x_hat_ND = by_hand(sae, x_ND)
    assert report["tokens"] == len(x_ND)
    assert report["fvu"]["value"] == pytest.approx(fvu(y_ND, x_hat_ND), rel=1e-5)
    assert report["l0"]["value"] == pytest.approx(float((z_NF != 0).sum(1).double().mean()))
    # Without what it adds to the code the number is another one: the check can fail.
    without = x_hat_ND - (x_ND.double() @ sae.W_skip.T.double() if skip else sae.b_dec.double())
    assert abs(fvu(y_ND, without.detach()) - report["fvu"]["value"]) > 1e-3


def test_its_reconstruction_is_spliced_in_at_the_target(tiny_model: Path, tiny_cache: Path):
    cache, bridge = Cache(tiny_cache), models.load(tiny_model)
    sae = made(32, 32, 48, skip=True, target=SECOND_HOOK)
    report = evaluate(sae, cache, bridge, n_tokens=10**9)
    kl, n_tokens = 0.0, 0
    reads, writes = (models.resolve_hook(bridge, hook) for hook in (HOOK, SECOND_HOOK))
    for chunk in cache.contexts(HOOK, "held_out"):
        seen = {}

        def read(acts, hook, seen=seen):
            seen["x"] = acts

        def write(acts, hook, seen=seen):
            changed = by_hand(sae, seen["x"].flatten(0, 1))[1].view_as(acts).float()
            return torch.cat([acts[:, :1], changed[:, 1:]], 1)

        with torch.no_grad():
            clean = bridge(chunk.tokens).log_softmax(-1)
            hooks = [(reads, read), (writes, write)]
            spliced = bridge.run_with_hooks(chunk.tokens, fwd_hooks=hooks).log_softmax(-1)
        # Position 0 is as the model has it, and the last one has no next token to tell.
        kl_CT = (clean.exp() * (clean - spliced)).sum(-1)[:, 1:-1]
        kl += float(kl_CT.double().sum())
        n_tokens += kl_CT.numel()
    assert report["kl"]["value"] == pytest.approx(kl / n_tokens, rel=1e-4)


@pytest.mark.parametrize("skip", [False, True])
def test_the_index_of_a_transcoder_holds_the_codes_of_its_input(skip: bool, tmp_path: Path):
    sae, cache = made(toy.D, toy.D + 4, toy.F, skip=skip), toy.Cache()
    build.build(sae, cache, toy.HOOK, tmp_path / "features.db", tokenizer=toy.Tokenizer())
    dense_CTF = by_hand(sae, cache.acts.flatten(0, 1))[0].float().unflatten(0, (toy.C, toy.T))
    dense_CTF[:, 0] = 0
    with FeatureIndex(tmp_path / "features.db") as opened:
        check_numbers(opened, dense_CTF.numpy())
        peaks = [example.value for example in opened.examples(0) if example.band == -1]
        best = dense_CTF[..., 0].amax(1).sort(descending=True).values[: len(peaks)]
        assert peaks == pytest.approx(best.tolist(), rel=1e-5)
    # Its bias taken away from the input, as an autoencoder does, gives another index.
    other = by_hand(sae, (cache.acts - sae.b_dec.detach()[: toy.D]).flatten(0, 1))[0]
    with pytest.raises(AssertionError), FeatureIndex(tmp_path / "features.db") as opened:
        check_numbers(opened, other.float().unflatten(0, (toy.C, toy.T)).numpy())
