"""Our side: SAEs written in every form that can hold them, and files of others opened.

Shapes: N tokens, F features, D width.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from saelab import SAE, Choice, Threshold, formats
from saelab.errors import UsageError
from saelab.formats import circuit_tracer
from saelab.origin import Identity, Origin

D, F, K, N, LAYERS = 16, 64, 4, 256, 2
# The form that each package's folder is written in.
FORMS = {
    "sae_lens": "saelens",
    "sparsify": "sparsify",
    "dictionary_learning": "dictionary_learning",
    "sparse_autoencoder": "openai",
    "circuit_tracer": "circuit_tracer",
}
SHAPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "topk": (Choice(K), {}),
    "abstopk": (Choice(K, signed=True), {}),
    "relu": (Threshold(), {}),
    "jumprelu": (Threshold(), {"levels": True}),
    "layer norm": (Choice(K), {"token_norm": "layer_norm"}),
    "constant norm": (Threshold(), {"token_norm": "constant_norm_rescale"}),
    "transcoder": (Threshold(), {"transcoder": True}),
    "jumprelu skip transcoder": (Threshold(), {"transcoder": True, "skip": True, "levels": True}),
    "topk skip transcoder": (Choice(K), {"transcoder": True, "skip": True}),
}


def write(folder: Path) -> None:
    """SAEs with biases, levels, skips in every form that can hold them, and what they make of
    random tokens."""
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(N, D, generator=generator) * 2 + 0.5
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"x": x_ND}, folder / "x.safetensors")
    for name in SHAPES:
        layers = [_made(name, layer, generator) for layer in range(LAYERS)]
        for package, form in FORMS.items():
            _write(layers, form, folder / package / "ours" / name, x_ND)


def _write(layers: list[SAE], form: str, place: Path, x_ND: torch.Tensor) -> None:
    """The first layer, or of a form of sets all, with what they make of the tokens."""
    try:
        if form == "circuit_tracer":
            circuit_tracer.write_set(layers, place)
        else:
            formats.save(layers[0], place / "sae.pt" if form == "openai" else place, form)
            layers = layers[:1]
    except UsageError:
        return  # that form has no place for it
    made = {f"y{layer}": sae(x_ND) for layer, sae in enumerate(layers)}
    save_file(made, place / "ours.safetensors")


@torch.no_grad()
def _made(name: str, layer: int, generator: torch.Generator) -> SAE:
    form, options = SHAPES[name]
    kinds = {key: options.get(key, False) for key in ("transcoder", "skip")}
    sae = SAE(D, F, form, **kinds, seed=layer).requires_grad_(False)
    sae.b_enc.copy_(torch.randn(F, generator=generator) * 0.3)
    sae.b_dec.copy_(torch.randn(D, generator=generator) * 0.3)
    if sae.W_skip is not None:
        sae.W_skip.copy_(torch.randn(D, D, generator=generator) * 0.3)
    if options.get("levels"):
        sae.levels = torch.rand(F, generator=generator)
    sae.token_norm = options.get("token_norm", "")
    hooks = {"hook": f"blocks.{layer}.hook_resid_post"}
    if sae.transcoder:
        hooks = {"hook": f"blocks.{layer}.mlp.hook_in", "target": f"blocks.{layer}.hook_mlp_out"}
    sae.origin = Origin(**hooks, model=Identity("gpt2"))
    return sae


@torch.no_grad()
def opened(folder: Path, package: str) -> dict[str, dict[str, float]]:
    """What we make of each file that a package has saved, against what the package made of it:
    largest relative differences of reconstructions, and of codes times their decoder rows' norms,
    which no rescaling of rows changes."""
    x_ND = load_file(folder / "x.safetensors")["x"]
    rows = {}
    for truth in sorted((folder / package / "theirs").rglob("theirs.safetensors")):
        theirs, place = load_file(truth), truth.parent
        sae = SAE.load(place / "sae.pt" if (place / "sae.pt").exists() else _file(place))
        y_ND, code = sae.reconstruct(x_ND)
        dense_NF = torch.zeros(N, sae.n_features)
        dense_NF[code.tokens, code.features] = code.values
        strength_NF = dense_NF * sae.W_dec.norm(dim=1)
        rows[place.name] = {
            "output": apart(y_ND, theirs["y"]),
            "code": apart(strength_NF, theirs["code"] * theirs["norms"]),
        }
    return rows


def _file(place: Path) -> Path:
    """A layer of a set, or the folder itself."""
    return next(iter(sorted(place.glob("layer_*.safetensors"))), place)


def apart(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((mine - theirs).abs().max() / theirs.abs().max())
