"""Files that say something else than they mean, and are read as they say: what import --check says
of them. The SAE of the world that is known looks right; each mistake is caught, most are named.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from saelab import SAE, Choice, Threshold, formats
from saelab.evaluation.plausibility import plausibility
from saelab.formats.imported import imported
from saelab.origin import Origin
from saelab.scaling import fold
from tests.evaluation.test_plausibility import D, F, K, N, rows, world
from tests.formats.editing import edited, rewritten

WEIGHTS = "sae_weights.safetensors"
HOOK = "blocks.1.hook_resid_post"
STEP = 8  # of the world's tokens one is looked at


def written(at: Path, sae: SAE, **cfg: object) -> Path:
    sae.origin = Origin(hook=HOOK, k=K, more={"l0": float(K)})
    formats.save(sae, at, "saelens")
    edited(at, **cfg)
    return at


def said(at: Path, x_ND: torch.Tensor, *more: torch.Tensor, **others: torch.Tensor) -> str:
    """What the check says of a file on activations. more: what a transcoder explains."""
    few = {name: acts[::STEP] for name, acts in others.items()}
    explained = [acts[::STEP] for acts in more]
    return plausibility(imported(str(at)), x_ND[::STEP], *explained, others=few).wrong


def held(at: Path) -> dict[str, torch.Tensor]:
    return load_file(at / WEIGHTS)


def square(seed: int = 0) -> tuple[SAE, torch.Tensor]:
    """A world of as many directions as dimensions, at right angles."""
    sae, _ = world(seed)
    directions, _ = torch.linalg.qr(rows(D, D, seed))
    generator = torch.Generator().manual_seed(seed)
    code_ND = (torch.rand(N, D, generator=generator) + 6) * (
        torch.rand(N, D, generator=generator) < K / D
    )
    small = SAE(D, D, Threshold())
    small.levels = torch.full((D,), 3.5)
    small.W_enc.data.copy_(directions)
    small.W_dec.data.copy_(directions)
    small.b_dec.data.copy_(sae.b_dec.data)
    return small, code_ND @ directions + sae.b_dec.detach()


def uneven(at: Path) -> tuple[Path, torch.Tensor]:
    """A top-k whose rows have norms that it looks at."""
    sae, x_ND = world()
    topk = SAE(D, F, Choice(K))
    norms_F1 = torch.logspace(-1.5, 1.5, F)[torch.randperm(F)][:, None]
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        getattr(topk, name).data.copy_(getattr(sae, name).data)
    topk.W_dec.data *= norms_F1
    topk.W_enc.data /= norms_F1
    written(at, topk)
    return at, x_ND


def change(at: Path, **tensors: Callable[[torch.Tensor], torch.Tensor]) -> None:
    whole = held(at)
    named = {name: make(whole[name]).contiguous() for name, make in tensors.items()}
    rewritten(at / WEIGHTS, **named)


def of_square(at: Path, **tensors: Callable[[torch.Tensor], torch.Tensor]) -> str:
    sae, x_ND = square()
    change(written(at, sae), **tensors)
    return said(at, x_ND)


def of_world(at: Path, cfg: dict | None = None, **tensors: Callable) -> str:
    sae, x_ND = world()
    change(written(at, sae, **(cfg or {})), **tensors)
    return said(at, x_ND)


def scaled(at: Path, factor: float) -> str:
    sae, x_ND = world()
    fold(sae, factor)
    return said(written(at, sae), x_ND)


def uncentred(at: Path) -> str:
    sae, x_ND = world()
    sae.b_enc.data -= (sae.W_enc @ sae.b_dec).detach()
    return said(written(at, sae), x_ND)


def standard_with_topk(at: Path) -> str:
    sae, x_ND = world()
    sae.levels = None
    sae.b_dec.data *= 0.9  # as a top-k may: what is small is not chosen
    return said(written(at, sae), x_ND)


def choice_by_norms(at: Path) -> str:
    path, x_ND = uneven(at)
    return said(path, x_ND)


def wrong_layer(at: Path) -> str:
    (sae, x_ND), (_, other_ND) = world(), world(5)
    return said(written(at, sae), other_ND, **{"blocks.0.hook_resid_post": x_ND})


def wrong_model(at: Path) -> str:
    return said(written(at, world()[0]), world(5)[1])


def pair() -> tuple[SAE, torch.Tensor, torch.Tensor]:
    """A transcoder of known directions, what it reads and explains."""
    sae, x_ND = world()
    sae.b_enc.data -= (sae.W_enc @ sae.b_dec).detach()
    code = world()[0].encode(x_ND)
    sae.transcoder = True
    sae.W_dec.data.copy_(rows(F, D, 9))
    sae.b_dec.data.copy_(rows(1, D, 10)[0] * 3)
    exact = world()[0]
    exact.W_dec.data.copy_(sae.W_dec.data)
    exact.b_dec.data.copy_(sae.b_dec.data)
    return sae, x_ND, exact.decode(code).detach()


def transcoder_as_sae(at: Path) -> str:
    sae, x_ND, y_ND = pair()
    written(at, sae, architecture="jumprelu", apply_b_dec_to_input=False, d_out=None)
    return said(at, x_ND, mlp=y_ND)


def transcoder_elsewhere(at: Path, reads: bool) -> str:
    sae, x_ND, y_ND = pair()
    other = world(5)[1]
    written(at, sae)
    return said(at, other, y_ND, there=x_ND) if reads else said(at, x_ND, other, there=y_ND)


def without_means(at: Path) -> str:
    """Of a model whose stream was centred, where nothing says so."""
    sae, x_ND = world()
    shift_N1 = torch.linspace(-3, 3, N)[:, None]
    mean_D = sae.b_dec.data - sae.b_dec.data.mean()
    sae.b_dec.data.copy_(mean_D)
    centred_ND = x_ND - x_ND.mean(1, keepdim=True)
    return said(written(at, sae), centred_ND + shift_N1)


def tokens_normalised(at: Path) -> str:
    sae, x_ND = world()
    sizes_N1 = torch.logspace(-1, 1, N)[:, None]
    unit_ND = x_ND / x_ND.norm(dim=1, keepdim=True) * D**0.5
    mean = x_ND.norm(dim=1).mean() / D**0.5
    fold(sae, 1 / float(mean))
    fold(sae, 1.0)
    return said(written(at, sae), unit_ND * sizes_N1)


CAUGHT: dict[str, tuple[Callable[[Path], str], str]] = {
    "decoder transposed": (
        lambda at: of_square(at, W_dec=lambda w: w.T), "decoder transposed: FVU would be",
    ),
    "encoder transposed": (
        lambda at: of_square(at, W_enc=lambda w: w.T), "encoder transposed: FVU would be",
    ),
    "rows of the decoder in another order": (
        lambda at: of_world(at, W_dec=lambda w: w.roll(1, 0)), "is no better than",
    ),
    "columns of the decoder in another order": (
        lambda at: of_world(at, W_dec=lambda w: w.roll(1, 1)), "FVU",
    ),
    "the sign of the encoder": (lambda at: of_world(at, W_enc=lambda w: -w), "L0 is"),
    "missing centring": (
        lambda at: of_world(at, {"apply_b_dec_to_input": False}), "centred in its source",
    ),
    "centred twice": (uncentred, "not centred in its source"),
    "no b_dec": (lambda at: of_world(at, b_dec=torch.zeros_like), "FVU"),
    "thresholds too low": (
        lambda at: of_world(at, threshold=lambda t: t / 8), "thresholds off by 0.",
    ),
    "thresholds too high": (
        lambda at: of_world(at, threshold=lambda t: t * 4), "thresholds off by ",
    ),
    "logarithms taken for thresholds": (
        lambda at: of_world(at, threshold=lambda t: t.log() - 2), "L0 is",
    ),
    "inputs scaled up, unsaid": (lambda at: scaled(at, 4.0), "input scale off by 4"),
    "inputs scaled down, unsaid": (lambda at: scaled(at, 0.25), "input scale off by 0.25"),
    "the decoder in other units": (
        lambda at: of_world(at, W_dec=lambda w: w * 3), "off by ",
    ),
    "standard with a topk activation": (standard_with_topk, "L0 is"),
    "row norms of a checkpoint": (choice_by_norms, "norms of decoder rows included"),
    "another layer": (wrong_layer, "of another layer, blocks.0.hook_resid_post"),
    "another model": (wrong_model, "FVU"),
    "a transcoder taken for an SAE": (transcoder_as_sae, "a transcoder that explains mlp"),
    "a transcoder that reads elsewhere": (
        lambda at: transcoder_elsewhere(at, True), "it reads another place, there",
    ),
    "a transcoder that explains elsewhere": (
        lambda at: transcoder_elsewhere(at, False), "it explains another place, there",
    ),
    "a model without means": (without_means, "of a model without means"),
    "tokens normalised, unsaid": (
        tokens_normalised, "each token normalised (constant_norm_rescale)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CAUGHT)
def test_a_file_that_means_something_else_is_caught(what: str, tmp_path: Path):
    make, words = CAUGHT[what]
    assert words in make(tmp_path / "file")


def test_the_same_files_without_a_mistake_look_right(tmp_path: Path):
    for name, (sae, x_ND) in {"world": world(), "square": square()}.items():
        other = world(5)[1]
        assert said(written(tmp_path / name, sae), x_ND, blocks_0=other) == ""
    sae, x_ND, y_ND = pair()
    path = written(tmp_path / "pair", sae)
    assert said(path, x_ND, y_ND, there=world(5)[1]) == ""
