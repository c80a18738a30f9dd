"""Real files of other projects, with float64 inputs, outputs and codes beside them."""

from pathlib import Path

import numpy as np
import torch

from saelab import SAE

CLOSE = 1e-5
FOLDERS = {  # where the path of the file is not the name of its answers
    "gemma_scope/res": "gemma_scope/layer_3/width_16k/average_l0_7",
    "gemma_scope_2/affine": "gemma_scope_2/transcoder/layer_3_width_16k_l0_small_affine",
    "openai/topk": "openai/topk.pt",
    "qwen_scope/layer3": "qwen_scope/SAE-Res-Qwen3-1.7B-Base-W32K-L0_3/layer3.sae.pt",
    "circuit_tracer/layer_0": "circuit_tracer/layer_0.safetensors",
    "circuit_tracer/layer_1": "circuit_tracer/layer_1.safetensors",
}


def read(place: Path, name: str) -> tuple[SAE, torch.Tensor, np.ndarray, np.ndarray]:
    answers = np.load(place / f"{name}.oracle.npz")
    sae = SAE.load(place / FOLDERS.get(name, name))
    return sae, torch.from_numpy(answers["x"]), answers["y"], answers["code"]


@torch.no_grad()
def test_all_of_them_give_the_reconstruction_and_the_pairs_of_float64(assets: Path):
    place = assets / "formats"
    paths = sorted(place.rglob("*.oracle.npz"))
    names = [str(path.relative_to(place)).removesuffix(".oracle.npz") for path in paths]
    assert len(names) == 30
    wrong = {}
    for name in names:
        sae, x_BD, y_BD, code_BF = read(place, name)
        ours_BD, code = sae.reconstruct(x_BD)
        fired_BF = torch.zeros(code_BF.shape, dtype=torch.bool)
        fired_BF[code.tokens, code.features] = code.values != 0
        error = np.abs(ours_BD.double().numpy() - y_BD).max() / np.abs(y_BD).max()
        n_other = int((fired_BF.numpy() != (code_BF != 0)).sum())
        if not (error < CLOSE and n_other == 0):
            wrong[name] = (error, n_other)
    assert not wrong


@torch.no_grad()
def test_a_real_sae_of_an_early_version_fires_where_float64_says(assets: Path):
    from safetensors.torch import load_file

    folder = assets / "sae_othello" / "L3_x8"
    held = load_file(folder / "sae_weights.safetensors")
    x_BD = torch.randn(256, 128, generator=torch.Generator().manual_seed(0)) * 3
    u_BF = x_BD.double() @ held["W_enc"].double() + held["b_enc"].double()
    code = SAE.load(folder).encode(x_BD)
    fired_BF = torch.zeros(u_BF.shape, dtype=torch.bool)
    fired_BF[code.tokens, code.features] = code.values > 0
    assert fired_BF.numel() == 262_144 and torch.equal(fired_BF, u_BF > 0)
