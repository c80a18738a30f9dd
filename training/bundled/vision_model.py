"""Trains the bundled vision model on scenes drawn by code, without their labels. `python -m
training.bundled.vision_model --help`.

A masked autoencoder: three quarters of the patches are hidden, and a decoder that is thrown away
afterwards draws them. The loss asks for the colours and, as much, for each patch with its own mean
and contrast taken out, which is where textures and edges are. A killed run goes on from its last
checkpoint.
"""

import argparse
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

WIDTH, LAYERS, HEADS = 128, 6, 4
DECODER_WIDTH, DECODER_LAYERS = 96, 1
HIDDEN = 0.75  # share of the patches
BATCH, SCENES, SEED = 32, 16_000, 0
RATE, WARM_UP, WEIGHT_DECAY = 1.5e-3, 200, 0.05
EVERY = 250  # steps from one checkpoint to the next


def new_model(seed: int = 0) -> ViTMAEForPreTraining:
    """The untrained autoencoder: 6 layers, 128 wide, patches of 8 x 8 of 96 x 96 pixels."""
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


def loss(model: ViTMAEForPreTraining, pixels_BCHW: Tensor) -> Tensor:
    """Scalar: mean squared error of the hidden patches, of their colours and of their patterns."""
    out = model(pixels_BCHW)
    target, drawn = model.patchify(pixels_BCHW), out.logits
    colours = F.mse_loss(drawn, target, reduction="none").mean(-1)
    patterns = F.mse_loss(_pattern(drawn), _pattern(target), reduction="none").mean(-1)
    return ((4 * colours + patterns) * out.mask).sum() / out.mask.sum()


def _pattern(patches: Tensor) -> Tensor:
    """Patches without their mean and contrast."""
    return F.layer_norm(patches, patches.shape[-1:], eps=1e-3)


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
    checkpoint, first = work / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    start, log = time.process_time(), (work / "train.jsonl").open("a")
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
            torch.save({**state, "step": step + 1}, checkpoint.with_suffix(".tmp"))
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
    parser.add_argument("--steps", type=int, default=1300, help=f"batches of {BATCH} scenes")
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
