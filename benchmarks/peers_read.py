"""Folders that we write, opened by the packages that own their forms, each in its own environment:
what they reconstruct beside what we do. (sparsify without a GPU wants SPARSIFY_DISABLE_TRITON=1.)

    python benchmarks/peers_read.py write DIR          # where saelab is installed
    python benchmarks/peers_read.py read DIR sae_lens  # where sae_lens is, or sparsify
    python benchmarks/peers_read.py show DIR --out benchmarks/results/peers_read.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

D, F, K, N = 16, 64, 4, 256
FORMS = {"sae_lens": "saelens", "sparsify": "sparsify"}


def write(folder: Path) -> None:
    """SAEs with biases, levels, skips in every form that can hold them, and what they make of
    random tokens."""
    from saelab import SAE, Choice, Threshold, formats
    from saelab.errors import UsageError
    from saelab.origin import Identity, Origin

    shapes: dict[str, tuple[Any, dict[str, Any]]] = {
        "topk": (Choice(K), {}),
        "abstopk": (Choice(K, signed=True), {}),
        "relu": (Threshold(), {}),
        "jumprelu": (Threshold(), {"levels": True}),
        "layer norm": (Choice(K), {"token_norm": "layer_norm"}),
        "constant norm": (Threshold(), {"token_norm": "constant_norm_rescale"}),
        "transcoder": (Threshold(), {"transcoder": True}),
        "jumprelu skip transcoder": (
            Threshold(),
            {"transcoder": True, "skip": True, "levels": True},
        ),
        "topk skip transcoder": (Choice(K), {"transcoder": True, "skip": True}),
    }
    generator = torch.Generator().manual_seed(0)
    x_ND = torch.randn(N, D, generator=generator) * 2 + 0.5
    save_file({"x": x_ND}, _made(folder) / "x.safetensors")
    for name, (form, options) in shapes.items():
        kinds = {key: options.get(key, False) for key in ("transcoder", "skip")}
        sae = SAE(D, F, form, **kinds).requires_grad_(False)
        sae.b_enc.copy_(torch.randn(F, generator=generator) * 0.3)
        sae.b_dec.copy_(torch.randn(D, generator=generator) * 0.3)
        if sae.W_skip is not None:
            sae.W_skip.copy_(torch.randn(D, D, generator=generator) * 0.3)
        if options.get("levels"):
            sae.levels = torch.rand(F, generator=generator)
        sae.token_norm = options.get("token_norm", "")
        sae.origin = Origin("blocks.1.hook_resid_post", model=Identity("gpt2"))
        for package, written in FORMS.items():
            place = folder / package / name
            try:
                formats.save(sae, place, written)
            except UsageError:
                continue  # that form has no place for it
            save_file({"y": sae(x_ND)}, place / "ours.safetensors")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read(folder: Path, package: str) -> None:
    """What the package makes of each of its folders, against what we made."""
    x_ND, rows = load_file(folder / "x.safetensors")["x"], {}
    for place in sorted(path for path in (folder / package).iterdir() if path.is_dir()):
        ours = load_file(place / "ours.safetensors")["y"]
        with torch.no_grad():
            theirs = _reconstructed(package, place, x_ND)
        rows[place.name] = float((theirs - ours).abs().max() / ours.abs().max())
    from importlib.metadata import version

    names = {"sae_lens": "sae-lens", "sparsify": "eai-sparsify"}
    result = {"version": version(names[package]), "largest relative difference": rows}
    (folder / f"{package}.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


def _reconstructed(package: str, place: Path, x_ND: torch.Tensor) -> torch.Tensor:
    if package == "sae_lens":
        from sae_lens import SAE

        return SAE.load_from_disk(place, device="cpu")(x_ND)
    from sparsify import SparseCoder

    return SparseCoder.load_from_disk(place, device="cpu")(x_ND).sae_out


def main() -> None:
    """Write, read or collect."""
    parser = argparse.ArgumentParser(description="Folders that we write, opened by their owners.")
    parser.add_argument("step", choices=("write", "read", "show"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("package", nargs="?", choices=tuple(FORMS))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.step == "write":
        write(args.folder)
    elif args.step == "read":
        read(args.folder, args.package)
    else:
        found = {name: args.folder / f"{name}.json" for name in FORMS}
        whole = {name: json.loads(path.read_text()) for name, path in found.items()}
        args.out.write_text(json.dumps({"d": D, "features": F, "k": K, **whole}, indent=1) + "\n")


if __name__ == "__main__":
    main()
