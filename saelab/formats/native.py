"""Our own form, of SAEs and of cross-layer transcoders: `sae.safetensors` with the weights, a few
probe activations and what comes of them; `sae.json` with everything else.

Shapes: B probe rows, D width, L layers.
"""

from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from saelab import digests, sparsify
from saelab.coder import Coder
from saelab.cross_layer import CrossLayerTranscoder
from saelab.dictionaries import encoders
from saelab.errors import FailedRun, UsageError
from saelab.files import meant, read_object, write_atomic, write_json
from saelab.origin import Origin
from saelab.sae import SAE
from saelab.sparsify import Choice, Own
from saelab.token_norm import TokenNorm

HEADER, WEIGHTS = "sae.json", "sae.safetensors"
SCHEMA = "saelab/sae/2"
CROSS_LAYER = "saelab/cross-layer/1"
# Where each schema keeps the origin.
ORIGINS = {"saelab/sae/1": "about", SCHEMA: "origin", CROSS_LAYER: "origin"}
FIELDS = ("d_model", "d_out", "n_features", "sparsify", "transcoder", "skip")
PROBE_ROWS = 16
REMEDY = "restore a copy, or make it again"
# Of the probe error, relative.
TOLERANCE = {
    torch.float32: 1e-3,
    torch.float64: 1e-6,
    torch.bfloat16: 3e-2,
    torch.float16: 1e-2,
}


def recognise(path: Path) -> bool:
    """Whether a folder holds an SAE, or a cross-layer transcoder, of this form."""
    return (path / HEADER).is_file()


def write(sae: Coder, path: Path, probe: Tensor | None = None) -> None:
    """Write an SAE into a folder, each file atomically; see `SAE.save`."""
    if probe is None:
        generator = torch.Generator().manual_seed(0)
        probe = torch.randn(PROBE_ROWS, sae.d_model, generator=generator)
    state = sae.state_dict().items()
    tensors = {name: value.detach().cpu().contiguous() for name, value in state}
    tensors["probe"] = probe.to(sae.b_dec.dtype).cpu().contiguous()
    tensors["probe_error"] = _probe_error(sae, tensors["probe"])
    crosses = isinstance(sae, CrossLayerTranscoder)
    header = {
        **({"schema": CROSS_LAYER, "layers": sae.n_layers} if crosses else {"schema": SCHEMA}),
        "d_model": sae.d_model,
        "d_out": len(sae.b_dec),
        "n_features": sae.n_features,
        "sparsify": sparsify.to_dict(sae.sparsify),
        "transcoder": sae.transcoder,
        "skip": sae.W_skip is not None,
        **({"token_norm": sae.token_norm} if sae.token_norm else {}),
        **({} if crosses or sae.encoder is None else {"encoder": encoders.to_dict(sae.encoder)}),
        "origin": sae.origin.to_dict(),
    }
    write_atomic(path / WEIGHTS, lambda temporary: save_file(tensors, temporary))
    write_json(path / HEADER, {**header, "weights": digests.entry(path / WEIGHTS)})


def rewrite_origin(path: Path, origin: Origin) -> None:
    """Say anew where the SAE of a folder comes from; its weights stay, byte for byte."""
    header = _header(path)
    known = {name: header[name] for name in header if name not in ORIGINS.values()}
    schema = CROSS_LAYER if "layers" in header else SCHEMA
    write_json(path / HEADER, {**known, "schema": schema, "origin": origin.to_dict()})


def read(path: Path) -> Coder:
    """What a folder holds: its bytes checked by their digest, where there is one, its meaning on
    its probe.

    Raises UsageError for missing weights or an unknown schema, FailedRun for damaged files and if
    the probe's reconstruction error differs.
    """
    header = _header(path)
    tensors = _tensors(path, header.get("weights"))
    with meant(path / HEADER, REMEDY):
        sae, probe, expected = _made(header, tensors)
    _check_probe(sae, probe, expected, path)
    return sae


def _made(header: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[Coder, Tensor, Tensor]:
    """The SAE that a header describes, with its probe and the probe's error."""
    form = sparsify.from_dict(header["sparsify"])
    probe, expected = tensors.pop("probe"), tensors.pop("probe_error")
    sizes = header["n_features"], header["d_model"], header["d_out"]
    if "layers" in header:
        clt = _across(tensors, header["layers"], form, sizes)
        clt.origin = Origin.from_dict(header["origin"])
        return clt, probe, expected
    _check_shapes(tensors, sizes, header["skip"])
    token_norm = _token_norm(header.get("token_norm", ""))
    kind = {"transcoder": header["transcoder"], "token_norm": token_norm}
    sae = SAE.of(tensors, form, **kind, encoder=encoders.from_dict(header.get("encoder")))
    sae.origin = Origin.from_dict(header[ORIGINS[header["schema"]]])
    return sae, probe, expected


def _across(
    tensors: dict[str, Tensor],
    n_layers: int,
    form: sparsify.Sparsify,
    sizes: tuple[int, int, int],
) -> CrossLayerTranscoder:
    """The cross-layer transcoder of tensors named `layers.0.W_enc`; its shapes are checked by
    itself."""
    layers = [
        {
            name.removeprefix(start): value
            for name, value in tensors.items()
            if name.startswith(start)
        }
        for start in (f"layers.{i}." for i in range(n_layers))
    ]
    clt = CrossLayerTranscoder.of(layers, tensors["b_dec"], form)
    if (found := (clt.n_features, clt.d_model, clt.d_out)) != sizes:
        raise ValueError(f"tensors of {found} features, inputs and outputs, not {sizes}")
    return clt


def _check_shapes(tensors: dict[str, Tensor], sizes: tuple[int, int, int], skip: bool) -> None:
    """Raise ValueError for tensors that are not what the header says."""
    n_features, d_model, d_out = sizes
    shapes = {
        "W_enc": (n_features, d_model),
        "b_enc": (n_features,),
        "W_dec": (n_features, d_out),
        "b_dec": (d_out,),
        **({"W_skip": (d_out, d_model)} if skip else {}),
        **({"levels": (n_features,)} if "levels" in tensors else {}),
    }
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if found != shapes:
        raise ValueError(f"tensors of shapes {found}, not {shapes}")


def _token_norm(name: str) -> TokenNorm:
    if name not in get_args(TokenNorm):
        raise ValueError(f"no token normalisation {name!r}")
    return name  # type: ignore[return-value]


def _header(path: Path) -> dict[str, Any]:
    header = read_object(path / HEADER)
    if str(header.get("schema")) not in ORIGINS:
        raise UsageError(
            f"{path / HEADER} has schema {header.get('schema')!r}, "
            f"this version reads {' and '.join(ORIGINS)}"
        )
    form = header.get("sparsify")
    if isinstance(form, dict) and form.get("kind") == Own.__name__:
        _check_own(path, str(form.get("name")))
    if lacking := [name for name in FIELDS if name not in header]:
        raise FailedRun(f"{path / HEADER} lacks {', '.join(lacking)}; {REMEDY}")
    return header


def _check_own(path: Path, name: str) -> None:
    """Raise UsageError if the function that the SAE was trained with is not registered here."""
    if name not in sparsify.own_names():
        raise UsageError(
            f"{path} was trained with the sparsifier {name!r}, which is not known here: "
            f"saelab.register('sparsifier', {name!r}, function) before it is loaded"
        )


def _tensors(path: Path, entry: dict[str, Any] | None) -> dict[str, Tensor]:
    if not (path / WEIGHTS).is_file():
        raise UsageError(f"{path} has no {WEIGHTS}: its weights are missing")
    if entry is not None:
        with meant(path / HEADER, REMEDY):
            digests.check(path, entry, REMEDY)
    try:
        return load_file(path / WEIGHTS)
    except Exception as error:
        raise FailedRun(f"{path / WEIGHTS} cannot be read ({error}); {REMEDY}") from None


@torch.no_grad()
def _probe_error(sae: Coder, probe_BD: Tensor) -> Tensor:
    """Per row ||x_hat(x)|| and ||x - x_hat(x)|| (a transcoder: the first twice), [B, 2]: together
    they pin the function down."""
    needs_gradient = isinstance(sae.sparsify, Choice) and sae.sparsify.beta
    x_hat_BD = (sae.frozen() if needs_gradient else sae)(probe_BD.to(sae.b_dec.device)).cpu()
    error_BD = x_hat_BD if sae.transcoder else probe_BD - x_hat_BD
    return torch.stack([x_hat_BD.norm(dim=1), error_BD.norm(dim=1)], dim=1)


def _check_probe(sae: Coder, probe_BD: Tensor, expected_B2: Tensor, path: Path) -> None:
    difference_B2 = (_probe_error(sae, probe_BD) - expected_B2).abs()
    worst = (difference_B2 / expected_B2.abs().clamp_min(1e-6)).max().item()
    tolerance = TOLERANCE[probe_BD.dtype]
    if not worst <= tolerance:
        raise FailedRun(
            f"{path} is not the function that was saved: reconstruction of its probe activations "
            f"differs by {worst:.2g}, tolerance {tolerance:g}"
        )
