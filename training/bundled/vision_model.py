"""Trains the bundled vision model on scenes drawn by code, without their labels. `python -m
training.bundled.vision_model --help`.

A masked autoencoder of descriptors instead of pixels, as MaskFeat (Wei et al. 2022): half of the
patches are hidden, and from the others the model tells every patch's colours and the spectra of its
surroundings, which say what a texture is wherever its stripes lie. The decoder is thrown away. A
killed run goes on from its last checkpoint.

Shapes: B scenes, H x W pixels, P patches, K numbers of a descriptor.
"""

import argparse
import functools
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import ViTConfig, ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining, ViTModel

from saelab.scenes import PATCH, SIZE, scene

WIDTH, LAYERS, HEADS = 128, 4, 4
DECODER_WIDTH, DECODER_LAYERS = 96, 1
HIDDEN = 0.5  # share of the patches
BATCH, SCENES, SEED = 32, 16_000, 0
RATE, WARM_UP, WEIGHT_DECAY = 2e-3, 100, 0.05
WINDOW, RINGS, TURNS = 24, 6, 8  # pixels; of a spectrum, by frequency and by direction
EVERY = 100  # steps from one checkpoint to the next


def new_model(seed: int = 0) -> ViTMAEForPreTraining:
    """The untrained autoencoder: 4 layers, 128 wide, patches of 8 x 8 of 96 x 96 pixels."""
    torch.manual_seed(seed)
    config = ViTMAEConfig(
        image_size=SIZE,
        patch_size=PATCH,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        decoder_hidden_size=DECODER_WIDTH,
        decoder_num_hidden_layers=DECODER_LAYERS,
        decoder_num_attention_heads=HEADS,
        decoder_intermediate_size=4 * DECODER_WIDTH,
        mask_ratio=HIDDEN,
        layer_norm_eps=1e-6,
    )
    return ViTMAEForPreTraining(config)


def encoder(autoencoder: ViTMAEForPreTraining) -> ViTModel:
    """Its encoder alone, which sees every patch."""
    shared = autoencoder.config.to_dict()
    names = ("image_size", "patch_size", "hidden_size", "num_hidden_layers", "layer_norm_eps")
    names += ("num_attention_heads", "intermediate_size", "hidden_act", "qkv_bias")
    model = ViTModel(ViTConfig(**{name: shared[name] for name in names}), add_pooling_layer=False)
    weights = autoencoder.vit.state_dict()
    model.load_state_dict(weights)
    return model.eval()


def pixels(images_BHWC: np.ndarray) -> Tensor:
    """[B, 3, H, W]: what the model reads, -1 to 1."""
    return torch.from_numpy(images_BHWC).permute(0, 3, 1, 2).float() / 127.5 - 1


def descriptors(pixels_BCHW: Tensor) -> Tensor:
    """[B, P, K]: of each patch its mean colours and their spread; log energies by frequency and
    direction, which do not know where in the patch a pattern lies, of the patch alone and of WINDOW
    pixels around it."""
    batch, patch = len(pixels_BCHW), PATCH
    colours = F.unfold(pixels_BCHW, patch, stride=patch).view(batch, 3, patch**2, -1)
    flat = torch.cat([colours.mean(2), colours.std(2)], 1).transpose(1, 2)
    grey = pixels_BCHW.mean(1, keepdim=True)
    margin = (WINDOW - patch) // 2
    around = F.unfold(F.pad(grey, [margin] * 4, mode="reflect"), WINDOW, stride=patch)
    spectra = [_spectrum(around, WINDOW), _spectrum(F.unfold(grey, patch, stride=patch), patch)]
    return torch.cat([2 * flat, *spectra], 2)


def _spectrum(windows_BSP: Tensor, size: int) -> Tensor:
    """[B, P, RINGS * TURNS]: log energies of square windows by frequency and direction."""
    batch, _, n_patches = windows_BSP.shape
    windows = windows_BSP.transpose(1, 2).reshape(batch, n_patches, size, size)
    windows = windows - windows.mean((2, 3), keepdim=True)
    taper = torch.hann_window(size, periodic=False)
    energy = torch.fft.rfft2(windows * taper * taper[:, None]).abs().square().flatten(2)
    return torch.log10(energy @ _bins(size) / size**2 + 1e-3)


@functools.cache
def _bins(size: int) -> Tensor:
    """[size * (size // 2 + 1), RINGS * TURNS]: which frequencies count in which bin."""
    y = torch.fft.fftfreq(size)[:, None]
    x = torch.fft.rfftfreq(size)[None]
    length, angle = torch.hypot(x, y), torch.atan2(y, x + 0 * y) / math.pi + 0.5
    ring = (length / 0.5 * RINGS).long().clamp(max=RINGS - 1)
    turn = (angle * TURNS).long().clamp(max=TURNS - 1)
    return F.one_hot((ring * TURNS + turn).flatten(), RINGS * TURNS).float()


def loss(model: ViTMAEForPreTraining, pixels_BCHW: Tensor) -> Tensor:
    """Scalar: mean squared error of every patch's descriptor, hidden ones counting twice."""
    out, due = model(pixels_BCHW), descriptors(pixels_BCHW)
    # The decoder gives as many numbers as a patch has; the first K are the descriptor.
    error = (out.logits[..., : due.shape[-1]] - due).square().mean(-1)
    weight = 1 + out.mask
    return (error * weight).sum() / weight.sum()


def rate(step: int, n_steps: int) -> float:
    """Learning rate as a share of RATE: warm-up, then half a cosine to zero."""
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def draw(work: Path) -> np.ndarray:
    """[N, H, W, 3]: the training scenes, drawn once."""
    path = work / "scenes.npy"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        drawn = np.stack([scene(i, SEED).image for i in range(SCENES)])
        np.save(work / "part.npy", drawn)
        (work / "part.npy").rename(path)
    return np.load(path, mmap_mode="r")


def batch(images: np.ndarray, step: int) -> Tensor:
    """[B, 3, H, W]: the batch of a step, half of it mirrored."""
    rng = np.random.default_rng([SEED, step])
    read = pixels(images[np.sort(rng.choice(len(images), BATCH, replace=False))])
    mirrored_B = torch.from_numpy(rng.random(BATCH) < 0.5)
    return torch.where(mirrored_B[:, None, None, None], read.flip(3), read)


def train(work: Path, n_steps: int) -> None:
    """Train for n_steps, logging to train.jsonl."""
    images, model = draw(work), new_model()
    decayed = [p for p in model.parameters() if p.ndim == 2]
    rest = [p for p in model.parameters() if p.ndim != 2 and p.requires_grad]
    groups = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(
        groups, lr=RATE, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY, fused=True
    )
    checkpoint, first, before = work / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first, before = state["step"], state.get("cpu_seconds", 0.0)
    start, log = time.process_time() - before, (work / "train.jsonl").open("a")
    total = 0.0
    for step in range(first, n_steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * rate(step, n_steps)
        torch.manual_seed(step)  # which patches are hidden
        value = loss(model, batch(images, step))
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        total += value.item()
        if (step + 1) % 50 == 0:
            cpu = round(time.process_time() - start)
            row = {"step": step + 1, "loss": round(total / 50, 4), "cpu_seconds": cpu}
            print(json.dumps(row), file=log, flush=True)
            if not math.isfinite(total):
                raise FloatingPointError(f"loss is {total / 50} at step {step + 1}")
            total = 0.0
        if (step + 1) % EVERY == 0 or step + 1 == n_steps:
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            state |= {"step": step + 1, "cpu_seconds": time.process_time() - start}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").rename(checkpoint)


def export(work: Path, out: Path) -> None:
    """Write the encoder as float16 safetensors in Hugging Face layout, with its image processor."""
    model = new_model()
    model.load_state_dict(torch.load(work / "checkpoint.pt", weights_only=True)["model"])
    encoder(model).half().save_pretrained(out)
    size = {"height": SIZE, "width": SIZE}
    half = [0.5] * 3
    ViTImageProcessor(size=size, image_mean=half, image_std=half).save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["train", "export"])
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--steps", type=int, default=2200, help=f"batches of {BATCH} scenes")
    parser.add_argument(
        "--out", type=Path, default=Path("data/bundled-vision"), help="where export writes"
    )
    args = parser.parse_args()
    if args.step == "train":
        train(args.work, args.steps)
    else:
        export(args.work, args.out)


if __name__ == "__main__":
    main()
